"""The machine under a benchmark: its disk, its load, its memory, and a place to work on a real disk.

Figures of a shared machine drift; therefore every benchmark prints the latency of one fsync and the load beside them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
_FSYNCS = 40
_BLOCK = b"\0" * 4096


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is removed at the end. `MAINS_BENCH_DIR` says where (it must be the disk that you ask about)."""
    place = Path(os.environ.get("MAINS_BENCH_DIR") or RESULTS)
    place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fsync_us(folder: Path) -> float:
    """The median time of an fsync after 4 kB were appended, in microseconds."""
    path = folder / "fsync"
    spans: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            file.write(_BLOCK)
            start = time.perf_counter()
            os.fsync(file.fileno())
            spans.append(time.perf_counter() - start)
    path.unlink()
    return statistics.median(spans) * 1e6


def load() -> float:
    """How many programs wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


def rss_bytes() -> int:
    """The resident memory of this program."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return int(shown.stdout) * 1024


def settle() -> None:
    """Collect garbage, and give free memory back to the system where the C library can."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)


def describe() -> str:
    """One line: cores, system and Python."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
