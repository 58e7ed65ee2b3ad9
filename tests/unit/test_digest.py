"""The demo: real text is collected, and its digest has one grounded line for each document, on the real model."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mains
from mains.engines.catalogue import EngineSpec
from mains.engines.llama import LlamaEngine
from mains.settings import Settings

DIGEST = Path(__file__).resolve().parents[2] / "examples" / "digest"
LINE = re.compile(r"- \*\*(.+)\*\*: (This document is about .+\.)")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DIGEST / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_collects_what_the_dependencies_say_of_themselves(tmp_path: Path) -> None:
    files = load("collect").collect(tmp_path / "documents")
    assert len(files) >= 8
    assert files == sorted(files)
    assert all(file.suffix == ".md" and file.read_text(encoding="utf-8").strip() for file in files)


def test_the_key_is_that_of_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGEST))
    key_of = load("demo").key_of
    one, other = tmp_path / "a.md", tmp_path / "b.md"
    one.write_text("text")
    other.write_text("text")
    assert key_of([one]) == key_of([one]) != key_of([other])
    before = key_of([one])
    one.write_text("texT")
    assert key_of([one]) != before


@pytest.mark.model
async def test_each_document_gets_a_grounded_line(tmp_path: Path, embedded_model: Path) -> None:
    folder = tmp_path / "documents"
    chosen = [file for file in load("collect").collect(folder) if file.stem in ("rich", "typer", "uvloop")]
    for file in set(folder.iterdir()) - set(chosen):
        file.unlink()
    spec = EngineSpec(name="small", kind="llama", model="small", path=str(embedded_model), slots=2, context_tokens=2048)
    engine = LlamaEngine(spec, tmp_path / "llama.log", Settings())
    async with mains.open(tmp_path / "home", engines=[engine]) as kernel:
        outcome = await kernel.wait(await kernel.spawn(DIGEST / "editor.md", {"documents": str(folder)}))
    assert (outcome.exit_code, outcome.reason) == (0, "")
    lines = [LINE.fullmatch(line) for line in str(outcome.result).splitlines()]
    assert [found and found[1] for found in lines] == [file.name for file in chosen]
    for found, file in zip(lines, chosen, strict=True):
        assert found is not None
        text = file.read_text(encoding="utf-8").lower()
        words = re.findall(r"[\w'./-]*\w", found[2].lower())[4:]
        assert all(word in text for word in words if word not in ("which", "how"))


def test_collect_runs_as_a_script(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(DIGEST / "collect.py"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) >= 8
