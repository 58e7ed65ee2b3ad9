"""A folder of text files, as an input: the files that match, below it too, in the order of their names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from mains.errors import NotFoundError, UsageError
from mains.program.textfile import FileText, read_text_file
from mains.settings import Settings

LOOKED_AT_PER_FILE = 100
"""How many names may be looked at for each file that may be taken: somebody who gives `/` is told, not kept
waiting.
"""


def read_folder(folder: Path, patterns: Sequence[str], settings: Settings) -> tuple[FileText, ...]:
    """The text files in and below `folder` that match one of `patterns`, sorted by path; names are relative
    to it.

    A pattern is matched against the file's name, or against its whole relative path when it holds a `/`;
    capitals do not matter. Hidden files and folders, linked folders, and links out of the folder are left
    out.

    Raises UsageError: no such folder, no file that matches, too many files, or one that cannot be taken.
    """
    paths: list[str] = []
    try:
        if not folder.is_dir():
            raise NotFoundError(f"{folder}: no such folder")
        root = folder.resolve()
        for number, name in enumerate(_names(root)):
            if number >= LOOKED_AT_PER_FILE * settings.folder_files_max:
                raise UsageError(f"{folder}: too large to search (over {number:,} files)")
            if _matches(name, patterns) and (root / name).resolve().is_relative_to(root):
                paths.append(name)
            if len(paths) > settings.folder_files_max:
                raise UsageError(f"{folder}: more than {settings.folder_files_max:,} files match")
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: cannot be read: {error}") from error
    if not paths:
        raise UsageError(f"{folder}: no file in it matches {', '.join(patterns)}")
    return tuple(FileText(name, read_text_file(root / name, settings.input_bytes_max)) for name in sorted(paths))


def _names(root: Path) -> Iterator[str]:
    """The files below `root`, hidden ones left out, as paths relative to it with forward slashes."""
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()


def _matches(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase((path if "/" in pattern else name).lower(), pattern.lower()) for pattern in patterns)
