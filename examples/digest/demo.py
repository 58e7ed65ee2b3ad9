"""The demo: Mains reads about its own dependencies, one process for each document, on the embedded model.

    python examples/digest/demo.py [FOLDER]        (another folder of .md and .txt files)

It runs the command that it prints, `mains run`, and shows the digest. Kill anything in the middle (this, the daemon,
the engine) and start it again: the key is made of what the documents say, so the same run goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

from collect import collect

HERE = Path(__file__).resolve().parent
DOCUMENTS_MIN = 8


def main() -> int:
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".md", ".txt"))
    else:
        folder = Path("build") / "digest-documents"
        files = collect(folder)
        if len(files) < DOCUMENTS_MIN:
            print(f"only {len(files)} dependencies of Mains describe themselves; install Mains first", file=sys.stderr)
            return 1
    output = Path("digest.md")
    words = ["run", shown(HERE / "editor.md"), f"documents={folder}", "--key", key_of(files), "--output", str(output)]
    print(f"$ mains {shlex.join(words)}\n", flush=True)
    done = subprocess.run([sys.executable, "-m", "mains.cli", *words], check=False)
    if done.returncode == 0:
        print(f"\n{output}:\n\n{output.read_text(encoding='utf-8')}")
        print(f"Your own folder: mains run {shown(HERE / 'editor.md')} documents=FOLDER --output digest.md")
        print("What ran:        mains ps --all")
    return done.returncode


def key_of(files: list[Path]) -> str:
    """The same for the same documents under the same names."""
    digest = hashlib.sha256()
    for file in files:
        data = file.read_bytes()
        digest.update(f"{file.name}\0{len(data)}\0".encode() + data)
    return f"digest-{digest.hexdigest()[:12]}"


def shown(path: Path) -> str:
    """The path as one would type it here."""
    return os.path.relpath(path)


if __name__ == "__main__":
    raise SystemExit(main())
