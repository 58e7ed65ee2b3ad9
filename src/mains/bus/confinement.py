"""What a device may touch: rules from its table, and what its command needs to run. Nothing here restricts anybody.

    rules_of(spec, ground)      what it may read and write; raises ConfigError when its table asks for too much
    closed_names(...)           files and folders that its command names and that it may not touch
    advice(text, rules, name)   what to grant, going by what a device said before it ended

Read: the system, the code of its command (`codefolders.py`), and what `read` names. Write: the folder it works in, a
HOME and a folder for temporary files that are its own, and what `write` names. Nothing ever opens the home of Mains
(but workspaces by name), and what holds a person's keys only when it is named itself, not by a folder around it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mains.bus.codefolders import folders_of
from mains.bus.secrets import PLACEHOLDER
from mains.bus.spec import DeviceSpec
from mains.errors import ConfigError

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store", "/gnu/store"),
    *("/snap", "/home/linuxbrew/.linuxbrew", "/proc", "/sys"),
)
_RESOLVERS = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")  # where /etc/resolv.conf may lead
KEPT = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store", ".netrc", ".git-credentials"),
    *(".config/gcloud", ".config/gh", ".config/rclone", ".config/google-chrome", ".config/chromium", ".mozilla"),
    *(".local/share/keyrings", ".thunderbird", ".npmrc", ".pypirc", ".pgpass", ".bash_history", ".zsh_history"),
    *("Library/Keychains", "Library/Application Support"),
)
"""What of a person's home holds keys, and is opened only by its own name."""

_AROUND_MAX = 2_000  # folders beside something that is kept
_NAMES_MAX = 8
_DENIED = re.compile(
    r"denied|EACCES|EPERM|not permitted|ENOENT|no such|cannot|can't|could not|unable|fail", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w./~-])/[^\s'\"`<>|:;,()\[\]]+")


class Ground(msgspec.Struct, frozen=True):
    """Where things are. `own` is the device's folder in the home of Mains, `person` the home of its user."""

    home: Path
    own: Path
    person: Path
    path: str

    @classmethod
    def of(cls, home: Path, spec: DeviceSpec) -> Ground:
        """The ground of a device of this home, for the user that runs us."""
        ours = os.environ.get("PATH", os.defpath)
        path = spec.env.get("PATH", ours).replace("${PATH}", ours)
        return cls(home, home / "devices" / spec.name, Path("~").expanduser(), path)

    def whole(self, path: str) -> str:
        """A path with the person's home written out."""
        return str(self.person) + path[1:] if path == "~" or path.startswith("~/") else path

    @property
    def work(self) -> Path:
        """Where it works, if its table names no folder."""
        return self.own / "work"

    @property
    def private(self) -> tuple[Path, Path, Path]:
        """What is its own: where it works, its HOME, temporary files."""
        return self.work, self.own / "home", self.own / "tmp"


class Rules(msgspec.Struct, frozen=True):
    """Files and folders by their real names: what may be read (and run), what may be changed too.

    `given_read` and `given_write` are those of them that stand there because of this device alone.
    """

    read: tuple[str, ...]
    write: tuple[str, ...]
    given_read: tuple[str, ...] = ()
    given_write: tuple[str, ...] = ()

    def covers(self, path: str) -> bool:
        """Whether it may be read."""
        real = os.path.realpath(path)
        return any(within(real, each) for each in (*self.read, *self.write))


def rules_of(spec: DeviceSpec, ground: Ground) -> Rules:
    """The rules of a device. Raises ConfigError when `read`, `write` or `folder` opens what must stay closed."""
    kept = [_real(ground.home), *(_real(ground.person / each) for each in KEPT)]
    write = [_granted(path, "write", spec, ground, kept) for path in spec.write]
    if spec.folder:
        write.append(_granted(spec.folder, "folder", spec, ground, kept))
    read = [_granted(path, "read", spec, ground, kept) for path in spec.read]
    private = [_real(path) for path in ground.private]
    system = [each for folder in system_folders() for each in _around(folder, kept)]

    def writable(path: str) -> bool:
        return any(within(path, each) for each in (*private, *write))

    code = {
        each
        for path in folders_of(spec.command, spec.args, ground.path, Path(_real(ground.person)), writable)
        for each in (path, _real(Path(path)))
        if not any(within(kept_path, each) or within(each, kept_path) for kept_path in kept)
    }
    extra = _least([each for each in (*code, *read) if not any(within(each, folder) for folder in system)])
    return Rules((*system, *extra), (*private, *_least(write)), extra, _least(write))


def _granted(path: str, key: str, spec: DeviceSpec, ground: Ground, kept: Iterable[str]) -> str:
    """A path that a person named. Raises ConfigError."""
    where = f"device {spec.name}: `{key}`"
    wanted = os.path.normpath(ground.home / ground.whole(path))  # `folder` may be one of the home
    real = os.path.realpath(wanted)
    home = _real(ground.home)
    if not Path(real).exists() and key != "folder":
        raise ConfigError(f"{where} names {path}, which is not there", hint="make it first, or take it out")
    workspaces = f"{home}/workspaces"
    if within(home, real) or (within(real, home) and (real == workspaces or not within(real, workspaces))):
        if key == "folder" and within(real, _real(ground.work)):
            return real
        raise ConfigError(f"{where} names {path}, which opens the home of Mains", hint="name a folder beside it")
    around = next((each for each in kept if each != real and within(each, real)), None)
    if around is not None:
        hint = "name the folders inside that it needs; what holds keys is opened only by its own name"
        raise ConfigError(f"{where} names {path}, which holds {around}", hint=hint)
    if real != wanted and _linked_by(wanted, spec, ground):
        raise ConfigError(f"{where} names {path}, a link that the device itself can change", hint=f"write {real}")
    return real


def _linked_by(path: str, spec: DeviceSpec, ground: Ground) -> bool:
    """Whether a link on the way stands in what the device may write: it could lead elsewhere at the next start."""
    places = [_real(Path(ground.whole(each))) for each in spec.write] + [_real(each) for each in ground.private]
    links = [each for each in (Path(path), *Path(path).parents) if each.is_symlink()]
    return any(within(_real(link.parent), place) for link in links for place in places)


def system_folders() -> list[str]:
    """What every device may read, by real names."""
    leads = os.path.realpath("/etc/resolv.conf")
    resolvers = [each for each in _RESOLVERS if within(leads, each)]
    return [*_least([os.path.realpath(each) for each in (*SYSTEM, *resolvers) if Path(each).exists()])]


def _around(folder: str, kept: list[str]) -> Iterator[str]:
    """A folder without what is kept: itself, or else what lies beside the way there."""
    if not any(within(each, folder) for each in kept):
        if not any(within(folder, each) for each in kept):
            yield folder
        return
    if folder in kept:
        return
    try:
        inside = [each.path for each in os.scandir(folder) if not each.is_symlink()]
    except OSError:
        return
    for each in inside[:_AROUND_MAX]:
        yield from _around(each, kept)


def closed_names(spec: DeviceSpec, rules: Rules, ground: Ground) -> list[str]:
    """Files and folders in the words and the environment of a command that are there (or could be made there)."""
    found: list[str] = []
    texts = [(each, False) for each in spec.args]
    texts += [(each, True) for each in spec.env.values() if "${" not in each and not PLACEHOLDER.search(each)]
    for text, many in texts:
        for word in (text, *(text.split(os.pathsep) if many else text.split("=", 1)[1:])):
            path = ground.whole(word)
            if Path(path).is_absolute() and _could_be(path) and not rules.covers(path):
                found.append(os.path.normpath(path))
    return [*dict.fromkeys(found)][:_NAMES_MAX]


def _could_be(path: str) -> bool:
    try:
        place = Path(os.path.normpath(path))
        return place.exists() or (place.parent.is_dir() and place.parent != Path("/"))
    except (OSError, ValueError):
        return False


def advice(text: str, rules: Rules, name: str) -> str:
    """What to grant so that a device can do what it could not, going by the paths in what it said; empty: nothing."""
    for line in reversed(text.splitlines()):
        for found in _PATH.findall(line) if _DENIED.search(line) else ():
            path = found.rstrip(".")
            if _could_be(path) and not rules.covers(path):
                return (
                    f'it may not touch {path}; `read = ["{path}"]` or `write = ["{path}"]` in [devices.{name}] opens it'
                )
    return ""


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it; both are real names."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _least(paths: list[str]) -> tuple[str, ...]:
    """Without those that lie in another."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(within(path, each) for each in kept):
            kept.append(path)
    return tuple(kept)
