"""A home: the folder that holds everything of one Mains, and the lock that keeps it to one kernel.

    mains.toml    settings, engines and prices, written by a person or by `mains engine add`
    mains.db      the journal (SQLite; with -wal and -shm)
    workspaces/   a folder for each process that was given none, and the shared ones (`workspaces/NAME`)
    versions/     what stood in files before processes changed them (`bus/devices/versions.py`); may be deleted
    memory.db     the search index of memory (`mains.search`); may be deleted
    kv/           what the embedded engine has read of each process (`engines/kv_store.py`); may be deleted
    devices/      of each device: the folder it works in, and its tools as they were last listed
    logs/         what the daemon, its engines and its devices say
    lock          held (flock) by the kernel that serves this home; holds its pid
    secrets       names of secrets, who may have them, and values that no keyring keeps (`secretfile.py`)
    token         what a client over TCP must show

The folder has mode 0700. The daemon's socket lies outside: the path of a Unix socket has about 100 bytes at most.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mains.errors import ConfigError, DiskFullError, HomeLockedError, JournalError, MainsError
from mains.settings import Settings, load_settings

_TOP_LEVEL = {
    *("settings", "engines", "devices", "grants", "default_engine", "currency", "rates", "models", "memory", "web"),
    "files",
}


class Home:
    """The paths of a home. Making one touches nothing; `prepare` makes the folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "mains.toml"
        self.database = path / "mains.db"
        self.memory = path / "memory.db"
        self.workspaces = path / "workspaces"
        self.versions = path / "versions"
        self.logs = path / "logs"
        self.kv = path / "kv"
        self.devices = path / "devices"
        self.secrets = path / "secrets"
        self.lock_file = path / "lock"
        self.token_file = path / "token"

    @classmethod
    def find(cls, given: str | Path | None = None) -> Home:
        """The home that is meant: given, else `MAINS_HOME`, else the platform's folder for data of applications."""
        if given or (given := os.environ.get("MAINS_HOME")):
            return cls(Path(given).expanduser().absolute())
        import platformdirs  # not needed when a home is named

        return cls(Path(platformdirs.user_data_dir("mains", appauthor=False)))

    def prepare(self) -> None:
        """Make the folders. Raises ConfigError, or JournalError on a disk that is read-only or full."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            self.workspaces.mkdir(exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> MainsError:
        """What keeps this home from being used, in a sentence."""
        if error.errno == errno.EROFS:
            hint = "make it writable, or name another home with --home; `mains backup FILE` still reads it"
            return JournalError(f"{self.path}: this home is on a read-only disk", hint=hint)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFullError(
                f"{self.path}: the disk is full; nothing was written", hint="make room, then try again"
            )
        return ConfigError(f"{self.path}: {error.strerror}", hint="name another home with --home or MAINS_HOME")

    @property
    def socket(self) -> Path:
        """Where the daemon of this home listens: a short path, in a folder that only its user can enter."""
        name = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:16]
        runtime = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        return Path(runtime) / f"mains-{os.getuid()}" / f"{name}.sock"

    def document(self) -> dict[str, Any]:
        """What mains.toml says (nothing when there is none). Raises ConfigError."""
        try:
            text = self.config.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.config}: {error}") from error
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{self.config}: {error}", hint="mend the file, or move it away") from error
        for key in document:
            if key not in _TOP_LEVEL:
                known = ", ".join(sorted(_TOP_LEVEL))
                raise ConfigError(f"{self.config}: unknown key `{key}` (known: {known})")
        return document

    def settings(self) -> Settings:
        """The settings of this home."""
        table = self.document().get("settings", {})
        if not isinstance(table, dict):
            raise ConfigError(f"{self.config}: `settings` must be a table")
        return load_settings(table, str(self.config))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this home. Raises HomeLockedError when another kernel does, JournalError when the disk is read-only.

        The lock goes with the process.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = self.owner()
                whose = f" (process {owner} of this machine)" if owner else ""
                hint = "`mains down` ends a daemon; or name another home"
                raise HomeLockedError(f"{self.path}: another kernel serves this home{whose}", hint=hint) from error
            try:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
            except OSError as error:
                raise self._unusable(error) from error
            yield
        finally:
            os.close(descriptor)

    @property
    def writable(self) -> bool:
        """Whether anything can be written here: not on a read-only disk, nor in a folder of somebody else."""
        return os.access(self.path, os.W_OK)

    def held(self) -> bool:
        """Whether somebody holds this home now."""
        try:
            with self.lock_file.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def owner(self) -> int | None:
        """The process of this machine that last took the lock."""
        try:
            return int(self.lock_file.read_text() or 0) or None
        except (OSError, ValueError):
            return None
