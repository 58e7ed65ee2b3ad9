"""The verb `doctor`: what is wrong with this home and this machine. Starts nothing; changes nothing but by `--fix`."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mains.cli import mend
from mains.cli.app import FAILED, app, told
from mains.cli.audits import faults_of
from mains.cli.options import HomeOption, JsonOption, find_home, settings_of
from mains.cli.render import clean, say, say_json
from mains.errors import ConfigError, DaemonError, HomeLockedError, MainsError, NotFoundError

if TYPE_CHECKING:
    from mains.home import Home

_FREE_BYTES_MIN = 500_000_000
_FSYNC_MS_MAX = 50.0
_FSYNCS = 10
_SQLITE_MIN = (3, 37, 0)  # STRICT tables


class Finding(NamedTuple):
    """What was looked at, whether it is well, and what was found or what to do."""

    what: str
    ok: bool
    told: str


@app.command(epilog="Examples: mains doctor; mains doctor --fix")
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended safely, and say what was done.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with this home and machine.

    Looks at the home, the daemon, the disk, the journal and the engines; exits with 1 when anything is wrong. A journal
    that does not verify is never touched: restore a backup.
    """
    place = find_home(home)
    findings = []
    for check in (_mended, *_CHECKS) if fix else (*_CHECKS, _mendable):
        for finding in _tried(check, place):
            findings.append(finding)
            if not as_json:
                say(clean(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.what}: {finding.told}"))
    if as_json:
        say_json([finding._asdict() for finding in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(FAILED)


def _tried(check: Callable[[Home], Iterator[Finding]], home: Home) -> Iterator[Finding]:
    """The findings of one check; one that cannot be made is a finding too."""
    try:
        yield from check(home)
    except MainsError as error:
        yield Finding(check.__name__.strip("_"), False, f"{error}{f' ({error.hint})' if error.hint else ''}")
    except OSError as error:
        yield Finding(check.__name__.strip("_"), False, told(error))


def _versions(_: Home) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), f"{found} ({sys.executable})")
    enough = sqlite3.sqlite_version_info >= _SQLITE_MIN
    yield Finding("sqlite", enough, sqlite3.sqlite_version + ("" if enough else "; 3.37 or newer is needed"))


def _home(home: Home) -> Iterator[Finding]:
    if not home.path.exists():
        yield Finding("home", True, f"{home.path} does not exist yet; the first command makes it")
        return
    info = home.path.stat()
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.getuid():
        yield Finding("home", False, f"{home.path} belongs to user {info.st_uid}: name another with --home")
    elif mode & 0o077:
        yield Finding("home", False, f"{home.path} has mode {mode:o}: chmod 700 {home.path}")
    elif not home.writable:
        yield Finding(
            "home", False, f"{home.path} is read-only: `mains backup FILE` still reads it, nothing else works"
        )
    else:
        yield Finding("home", True, str(home.path))


def _config(home: Home) -> Iterator[Finding]:
    home.settings()
    told = str(home.config) if home.config.exists() else "none: all defaults"
    yield Finding("mains.toml", True, told)


def _daemon(home: Home) -> Iterator[Finding]:
    from mains.daemon.client import Client

    held = home.held()
    try:
        found = Client(home, settings_of(home), start=False).hello()
        yield Finding("daemon", True, f"process {found['pid']}, Mains {found['version']}")
    except DaemonError as error:
        if held:
            told = f"process {home.owner()} holds the home but does not answer: {error}; end it: kill {home.owner()}"
            yield Finding("daemon", False, told)
        else:
            yield Finding("daemon", True, "none runs; a command that needs it starts one")
    folder = home.socket.parent
    if folder.exists():
        info = folder.lstat()
        safe = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o077
        yield Finding("socket", safe, str(home.socket) if safe else f"{folder} must be yours, mode 0700: remove it")


def _disk(home: Home) -> Iterator[Finding]:
    folder = home.path if home.path.exists() else _existing(home)
    free = shutil.disk_usage(folder).free
    told = f"{free / 1e9:.1f} GB free"
    yield Finding("disk", free >= _FREE_BYTES_MIN, told if free >= _FREE_BYTES_MIN else f"{told}: make room")
    if home.path.exists() and home.writable:
        latency_ms = _fsync_ms(home)
        slow = "" if latency_ms <= _FSYNC_MS_MAX else ": every turn waits for it; a local disk is faster"
        yield Finding("fsync", latency_ms <= _FSYNC_MS_MAX, f"{latency_ms:.2f} ms{slow}")


def _existing(home: Home) -> str:
    return str(next(parent for parent in home.path.absolute().parents if parent.exists()))


def _fsync_ms(home: Home) -> float:
    """The median time of a small write and its fsync, beside the journal."""
    times = []
    with tempfile.TemporaryFile(dir=home.path) as file:
        for _ in range(_FSYNCS):
            begun = time.perf_counter()
            file.write(b"x" * 4_096)
            file.flush()
            os.fsync(file.fileno())
            times.append(1_000 * (time.perf_counter() - begun))
    return sorted(times)[_FSYNCS // 2]


def _audits(home: Home) -> Iterator[Finding]:
    from mains.daemon.client import Client
    from mains.kernel.schema import SCHEMA_VERSION, stored_version

    if home.path.exists() and not home.writable:
        return  # SQLite reads no journal where it cannot write a lock
    client = Client(home, settings_of(home), start=False)
    version = stored_version(home.database) if home.database.exists() else SCHEMA_VERSION
    if version < SCHEMA_VERSION:
        told = f"version {version}: the next daemon brings it to {SCHEMA_VERSION}, and keeps a copy"
        yield Finding("schema", True, told)
        return
    for what in ("journal", "ledger"):
        try:
            faults = faults_of(what, client)
        except NotFoundError:
            yield Finding(what, True, "none yet")
            continue
        told = "all is well"
        if faults:
            told = f"{len(faults)} faults: {faults[0]} (mains {what} verify lists all); {mend.RESTORE}"
        yield Finding(what, not faults, told)


def _engines(home: Home) -> Iterator[Finding]:
    from mains.compose import Engines

    engines = Engines.of(home)
    for spec in engines.specs.values():
        what = f"engine {spec.name}{' (default)' if spec.name == engines.default else ''}"
        if spec.kind == "llama" and not spec.path:
            yield _embedded(what, needed=spec.name == engines.default)
        elif spec.path and not (home.path / spec.path).is_file():
            yield Finding(what, False, f"{home.path / spec.path}: no such file")
        elif spec.key_env and not os.environ.get(spec.key_env):
            yield Finding(what, False, f"{spec.key_env} is not set: export the key before the daemon starts")
        else:
            yield Finding(what, True, f"{spec.model} {spec.url}".strip())


def _embedded(what: str, *, needed: bool) -> Finding:
    """Whether the model of the embedded engine is there. Nobody misses it when another engine is the default."""
    try:
        from mains.engines import model_file
    except ImportError:
        return Finding(what, not needed, "this build has no embedded engine")
    try:
        return Finding(what, True, str(model_file.find()))
    except ConfigError as error:
        return Finding(what, not needed, f"{error} ({error.hint})")


def _secrets(home: Home) -> Iterator[Finding]:
    """Where secrets are kept, and whether devices can have those that they name."""
    from mains.bus.spec import load_devices, plain_secrets, secrets_of
    from mains.vault import read_entries

    found = {entry.name: entry for entry in read_entries(home)}
    plain = [name for name, entry in found.items() if entry.kept == "plaintext"]
    if found:
        told = f"{len(found)} kept"
        if plain:
            told += f"; in PLAINTEXT: {', '.join(plain)} (`mains secret set NAME --passphrase` seals one)"
        yield Finding("secrets", True, told)
    for name, spec in load_devices(home.document().get("devices", {}), str(home.config)).items():
        for each in secrets_of(spec):
            if each not in found or name not in found[each].devices:
                yield Finding(
                    f"device {name}", False, f"the secret {each} is not for it: mains secret set {each} --for {name}"
                )
        if literal := plain_secrets(spec):
            told = f"in PLAINTEXT in {home.config}: {', '.join(literal)}; {{{{secret:NAME}}}} can stand there"
            yield Finding(f"device {name}", True, told)


def _confinement(home: Home) -> Iterator[Finding]:
    """By what devices are confined here, those that are not, and what they were not given."""
    from mains.bus.mechanism import UNCONFINED
    from mains.bus.spec import load_devices
    from mains.bus.warden import Warden

    warden = Warden(home.path)
    weakness = warden.mechanism.weakness
    yield Finding("confinement", True, f"{warden.mechanism}{f': {weakness}' if weakness else ''}")
    for name, spec in load_devices(home.document().get("devices", {}), str(home.config)).items():
        word = warden.word_of(spec)
        if word.by == UNCONFINED:
            yield Finding(f"device {name}", True, f"{UNCONFINED}: {word.why}")
        elif word.why:
            yield Finding(f"device {name}", False, word.why)
        if word.closed:
            told = f"its command names {', '.join(word.closed)}, which it may not touch"
            yield Finding(f"device {name}", False, f"{told}: `read` or `write` in [devices.{name}] opens it")


def _mendable(home: Home) -> Iterator[Finding]:
    """What `--fix` would mend. Most of it does no harm."""
    for each in mend.find(home, settings_of(home)):
        if not each.wrong or each.what != "mode":  # the mode of the home is looked at above
            yield Finding(each.what, not each.wrong, f"{each.told}: mains doctor --fix mends it")


def _mended(home: Home) -> Iterator[Finding]:
    """Mend, and say what was done; what has to wait for the daemon's end is said too."""
    for each in mend.find(home, settings_of(home)):
        try:
            with home.lock() if each.alone else contextlib.nullcontext():
                each.do()
        except HomeLockedError:
            yield Finding(each.what, not each.wrong, f"{each.told}: `mains down`, then --fix again")
        else:
            yield Finding(each.what, True, f"mended: {each.told}")


_CHECKS = (_versions, _home, _config, _daemon, _disk, _audits, _engines, _secrets, _confinement)
