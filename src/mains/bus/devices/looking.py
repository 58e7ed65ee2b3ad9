"""Looking at files: list, read, find and search. Nothing is changed, nothing is followed, and every look has an end.

A regular expression is matched by the engine that checks the arguments of calls (Rust's `regex`, of jsonschema-rs): its
time is linear in the text, whatever the expression, and its memory is bounded. It knows no look-around and no
back-references, which cannot be had at that price.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import re
import stat
import time
from collections.abc import Callable, Generator, Iterator, Sequence

import msgspec

from mains.bus.devices.beneath import Entry, Root, TooManyError, entries, file_steps, folder, look, regular, steps, walk
from mains.bus.devices.refused import Refused, shown
from mains.settings import Settings

LIST_ENTRIES_MAX = 1_000
FOUND_MAX = 1_000
LINES_MAX = 500  # that one search gives
_LOOK_S = 10.0
_SCAN_BYTES_MAX = 16 * 1024 * 1024  # of a file of which a range is read
_LINE_CHARACTERS_MAX = 4_000  # of a line that a regular expression is matched against
_SHOWN_CHARACTERS_MAX = 300  # of a line that are shown
_PATTERN_CHARACTERS_MAX = 1_000
_COMPILED_BYTES_MAX = 256 * 1024  # some thousand states: 50 ms for such a line at worst, in which nothing else runs
_CACHE_BYTES_MAX = 1024 * 1024
_BRACES_MAX = 64
_BINARY_BYTES = 8_192  # a NUL in the first of them: no text


class Looks:
    """The looks at one workspace. Everything raises Refused or OSError."""

    def __init__(self, root: Root, settings: Settings) -> None:
        self._root = root
        self._settings = settings

    def list(self, path: str) -> str:
        """The names in a folder, with the sizes of files."""
        names = steps(path)
        if not names and not self._root.path.exists():
            return "(empty)"
        with folder(self._root, names) as at:
            found = entries(at, LIST_ENTRIES_MAX + 100_000)
            lines = [line for entry in found[:LIST_ENTRIES_MAX] if (line := _line(at, entry.name))]
        if len(found) > LIST_ENTRIES_MAX:
            lines.append(f"... and {len(found) - LIST_ENTRIES_MAX} more")
        return "\n".join(lines) or "(empty)"

    def read(self, path: str, line: int | None, lines: int | None) -> str:
        """A text file, whole; or `lines` lines from `line` on (1 is the first), behind a line that says which."""
        names, name = file_steps(path)
        with folder(self._root, names) as at, regular(self._root, at, name, path) as file:
            if line is None and lines is None:
                most = self._settings.workspace_file_bytes_max
                data = file.read(most + 1)
                if len(data) > most:
                    raise Refused(f"{path}: larger than {most} bytes; `line` and `lines` read a part")
                return _text(path, data)
            data = file.read(_SCAN_BYTES_MAX + 1)
        return self._part(path, data, line or 1, lines)

    def _part(self, path: str, data: bytes, line: int, lines: int | None) -> str:
        cut = len(data) > _SCAN_BYTES_MAX
        rows = data[:_SCAN_BYTES_MAX].split(b"\n")
        if rows[-1] == b"":
            rows.pop()
        wanted = rows[line - 1 : None if lines is None else line - 1 + lines]
        if not wanted:
            raise Refused(f"{path}: it has {len(rows)} lines, no line {line}")
        text = _text(path, b"\n".join(wanted))
        if len(text) > self._settings.workspace_file_bytes_max:
            raise Refused(
                f"{path}: these lines have more than {self._settings.workspace_file_bytes_max} bytes; ask for fewer"
            )
        of = f"more than {len(rows)}" if cut else str(len(rows))
        return f"[lines {line}-{line + len(wanted) - 1} of {of}]\n{text}"

    def find(self, pattern: str, path: str) -> str:
        """The paths of files and folders that match a pattern, sorted."""
        match = glob(pattern)
        depth = len(steps(path))
        found: list[str] = []
        note = ""
        with contextlib.closing(self._below(path)) as below:
            for entry in below:
                if isinstance(entry, str):
                    note = entry
                elif match(entry.path.split("/")[depth:]):
                    if len(found) == FOUND_MAX:
                        note = f"[only the first {FOUND_MAX:,}]"
                        break
                    found.append(shown(entry.path) + ("/" if stat.S_ISDIR(entry.info.st_mode) else ""))
        return "\n".join([*found, *([note] if note else [])]) or "(nothing matches)"

    def search(self, wanted: Wanted, path: str, only: str) -> str:
        """The lines that are `wanted`, as PATH:LINE: TEXT, of the files below a folder (or of one file)."""
        match = glob(only) if only else None
        depth = len(steps(path))
        hits = Hits(wanted, time.monotonic() + _LOOK_S)
        notes: list[str] = []
        large = binary = 0
        with contextlib.closing(self._below(path)) as below, contextlib.suppress(TimeoutError):
            for entry in below:
                if isinstance(entry, str):
                    notes.append(entry)
                elif not entry.is_file or (match and not match(entry.path.split("/")[depth:] or [entry.name])):
                    continue
                elif entry.info.st_size > self._settings.workspace_file_bytes_max:
                    large += 1
                elif (text := self._searched(entry)) is None:
                    binary += 1
                elif not hits.add(entry.path, text):
                    break
        if large or binary:
            most = self._settings.workspace_file_bytes_max
            notes.append(f"[not searched: {large} larger than {most} bytes, {binary} no text]")
        return "\n".join([*hits.lines, *hits.notes(), *notes]) or "(nothing found)"

    def _searched(self, entry: Entry) -> str | None:
        """The text of a file; None for one that is none, or that cannot be read (any more)."""
        try:
            with regular(self._root, entry.at, entry.name, entry.path) as file:
                data = file.read(self._settings.workspace_file_bytes_max)
        except (OSError, Refused):
            return None
        return None if b"\0" in data[:_BINARY_BYTES] else data.decode(errors="replace")

    def _below(self, path: str) -> Generator[Entry | str, None, None]:
        """Everything below a folder but what is git's own (or one file that is named); last, why not all."""
        names = steps(path)
        if names and (one := self._one(names)):
            yield from one
            return
        if not names and not self._root.path.exists():
            return
        hidden = ""
        try:
            for entry in walk(self._root, names, time.monotonic() + _LOOK_S):
                if hidden and entry.path.startswith(hidden):
                    continue
                if entry.name == ".git":
                    hidden = f"{entry.path}/"
                    continue
                yield entry
        except TimeoutError:
            yield f"[stopped after {_LOOK_S:g} s: name a folder below]"
        except TooManyError as error:
            yield f"[stopped: {error}]"

    @contextlib.contextmanager
    def _file(self, names: Sequence[str]) -> Iterator[Entry | None]:
        with folder(self._root, names[:-1]) as at:
            info = look(at, names[-1])
            is_folder = info is None or stat.S_ISDIR(info.st_mode)
            yield None if is_folder or info is None else Entry("/".join(names), names[-1], at, info)

    def _one(self, names: Sequence[str]) -> Iterator[Entry] | None:
        with self._file(names) as entry:
            if entry is None:
                return None

        def one() -> Iterator[Entry]:
            with self._file(names) as entry:
                if entry is not None:
                    yield entry

        return one()


class Wanted(msgspec.Struct, frozen=True):
    """What a line must be, and how much of it is looked at (0: all)."""

    is_in: Callable[[str], bool]
    characters_max: int = 0


class Hits:
    """The lines that were found, as many as may be, until it takes too long."""

    def __init__(self, wanted: Wanted, deadline_s: float) -> None:
        self.lines: list[str] = []
        self._wanted = wanted
        self._deadline_s = deadline_s
        self._long = 0
        self._late = self._full = False

    def add(self, path: str, text: str) -> bool:
        """Look through a text; False when that is enough."""
        where, most = shown(path), self._wanted.characters_max
        for number, line in enumerate(text.split("\n"), 1):
            if time.monotonic() > self._deadline_s:
                self._late = True
                return False
            self._long += most > 0 and len(line) > most
            if not self._wanted.is_in(line[:most] if most else line):
                continue
            if len(self.lines) == LINES_MAX:
                self._full = True
                return False
            self.lines.append(f"{where}:{number}: {_short(line)}")
        return True

    def notes(self) -> Iterator[str]:
        """Why these may not be all."""
        if self._full:
            yield f"[only the first {LINES_MAX} lines]"
        if self._late:
            yield f"[stopped after {_LOOK_S:g} s: name a folder below, or a simpler expression]"
        if self._long:
            yield f"[{self._long} long lines: only {self._wanted.characters_max:,} characters of each were looked at]"


def wanted_text(text: str, *, ignore_case: bool) -> Wanted:
    """Whether a line has this text in it."""
    if not ignore_case:
        return Wanted(lambda line: text in line)
    folded = text.casefold()
    return Wanted(lambda line: folded in line.casefold())


@functools.lru_cache(maxsize=32)
def wanted_pattern(pattern: str, *, ignore_case: bool) -> Wanted:
    """Whether a line matches a regular expression somewhere. Raises Refused for one that is wrong or too large."""
    from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

    if not pattern or len(pattern) > _PATTERN_CHARACTERS_MAX:
        raise Refused(f"a regular expression of 1 to {_PATTERN_CHARACTERS_MAX:,} characters is needed")
    bounds = RegexOptions(size_limit=_COMPILED_BYTES_MAX, dfa_size_limit=_CACHE_BYTES_MAX)
    schema = {"pattern": f"(?i){pattern}" if ignore_case else pattern}
    try:
        check: Callable[[str], bool] = Draft202012Validator(schema, pattern_options=bounds).is_valid
    except (ValidationError, ValueError) as error:
        told = "no regular expression that is known here (no look-around, no back-references), or too large"
        raise Refused(f"{shown(pattern[:200])}: {told}") from error
    return Wanted(check, _LINE_CHARACTERS_MAX)


def glob(pattern: str) -> Callable[[Sequence[str]], bool]:
    """Whether the names of a path match a pattern: `*`, `?`, `[...]` in a name, `**` for folders, `{a,b}` for either.

    A pattern without a `/` is for names at any depth. Raises Refused.
    """
    if not pattern or len(pattern) > _PATTERN_CHARACTERS_MAX:
        raise Refused(f"a pattern of 1 to {_PATTERN_CHARACTERS_MAX:,} characters is needed, such as **/*.md")
    ways = [_way(each) for each in _either(pattern)]
    return lambda names: any(_matches(way, tuple(names)) for way in ways)


_Way = tuple[Callable[[str], object] | None, ...]


def _way(pattern: str) -> _Way:
    """A pattern as a check of each name; None stands for any number of folders."""
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    if "/" not in pattern:
        names.insert(0, "**")
    return tuple(None if name == "**" else re.compile(fnmatch.translate(name)).match for name in names)


def _matches(way: _Way, names: tuple[str, ...]) -> bool:
    """Whether names match, in steps of pattern times path: `reached` are the places of the path that can be reached."""
    reached = {0}
    for check in way:
        if check is None:
            reached = set(range(min(reached), len(names) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(names) and check(names[at])}
    return len(names) in reached


def _either(pattern: str) -> list[str]:
    """A pattern for each choice of its braces. Raises Refused for too many."""
    ways, done = [pattern], list[str]()
    while ways:
        way = ways.pop()
        inner = re.search(r"\{([^{}]*)\}", way)
        if inner is None:
            done.append(way)
        else:
            ways += [way[: inner.start()] + each + way[inner.end() :] for each in inner[1].split(",")]
        if len(ways) + len(done) > _BRACES_MAX:
            raise Refused(f"{shown(pattern[:200])}: more than {_BRACES_MAX} choices in braces")
    return done


def _short(line: str) -> str:
    line = line.rstrip("\r")
    return line if len(line) <= _SHOWN_CHARACTERS_MAX else f"{line[:_SHOWN_CHARACTERS_MAX]} [...]"


def _line(at: int, name: str) -> str:
    """A line of a list; empty for what has gone meanwhile."""
    info = look(at, name)
    if info is None:
        return ""
    if stat.S_ISLNK(info.st_mode):
        return f"{shown(name)}@ (a link: not followed)"
    return f"{shown(name)}/" if stat.S_ISDIR(info.st_mode) else f"{shown(name)}  {info.st_size} bytes"


def _text(path: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: not UTF-8 text") from error
