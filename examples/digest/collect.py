"""Real text that is on every machine where Mains is installed: the long descriptions of its own dependencies.

    python examples/digest/collect.py FOLDER

Writes NAME.md into FOLDER for each runtime dependency of Mains that is installed and describes itself.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def dependencies() -> list[str]:
    """The names of what Mains needs to run."""
    try:
        wanted = metadata.requires("mains") or []
    except metadata.PackageNotFoundError:  # run from a source tree
        wanted = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [found[0] for each in wanted if "extra ==" not in each and (found := _NAME.match(each))]


def description(name: str) -> str:
    """The long description of an installed package; empty when it is not installed or has none."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    body = about.get_payload()
    return (body if isinstance(body, str) and body.strip() else about.get("Description", "") or "").strip()


def collect(folder: Path) -> list[Path]:
    """Write the descriptions; the files, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in dependencies():
        if text := description(name):
            file = folder / f"{name}.md"
            file.write_text(text + "\n", encoding="utf-8")
            files.append(file)
    return sorted(files)


if __name__ == "__main__":
    for written in collect(Path(sys.argv[1])):
        print(written)
