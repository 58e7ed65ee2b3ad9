"""Following a run until it has ended: a live table, plain lines, the text as it comes, or nothing.

    follow(client, pid, display) -> (settled, outcome)

Ctrl-C sends TERM to the process and goes on waiting; a second one leaves at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import typer

from mains.cli.app import INTERRUPTED
from mains.cli.render import as_tree, clean, console, name_of, note, shorten, table
from mains.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from mains.daemon.client import Client

View = Mapping[str, Any]
Waited = tuple[bool, dict[str, Any]]
_LOOK_S = 0.4
_QUESTION_CHARS = 5_000  # that of a device has its words, and an address whole
_SETTLES = ("exited", "doubted", "faulted", "refused", "signalled")
_CUT: View = {"kind": "cut"}
_AT_WORK = ("RUNNING", "READY", "STOPPED", "WAITING", "NEW", "EXITED")


class Display(Protocol):
    """What a person sees of a run."""

    def wait(self, client: Client, pid: int) -> Waited:
        """Show the run until it has settled."""
        ...


def follow(client: Client, pid: int, display: Display) -> Waited:
    """Wait for a process that this command started. Ctrl-C ends it; a second one, whenever it comes, leaves it."""
    try:
        try:
            return display.wait(client, pid)
        except KeyboardInterrupt:
            note(f"process {pid} is told to end (TERM); Ctrl-C again leaves it")
            return _end(client, pid, display)
    except KeyboardInterrupt:
        note(f"left; mains show {pid} tells how process {pid} ended, mains kill {pid} --signal KILL ends it now")
        raise typer.Exit(INTERRUPTED) from None


def _end(client: Client, pid: int, display: Display) -> Waited:
    try:
        client.signal(pid, "TERM")
    except UsageError as error:  # it has ended meanwhile
        note(str(error))
    return display.wait(client, pid)


class Nothing:
    """Says nothing."""

    def wait(self, client: Client, pid: int) -> Waited:
        return client.wait(pid)


class _Looks:
    """A display that looks at the processes now and then."""

    def __init__(self) -> None:
        self._asked: dict[int, str] = {}

    def wait(self, client: Client, pid: int) -> Waited:
        while True:
            settled, outcome = client.wait_once(pid, _LOOK_S)
            views = client.below(pid)
            self.show(views)
            self._tell_questions(client, views)
            if settled:
                return settled, outcome

    def show(self, views: Sequence[View]) -> None:
        """Show the processes as they are."""

    def _tell_questions(self, client: Client, views: Sequence[View]) -> None:
        """A process that asks a person waits for an answer from another terminal."""
        for view in views:
            calls = []
            if view["state"] in ("WAITING", "RUNNING") and view["reason"].startswith("human"):
                calls = [call for call in client.show(view["pid"])["open_calls"] if call["question"]]
            asked = " ".join(call["asks"] for call in calls)
            if not asked:
                self._asked.pop(view["pid"], None)
            elif asked != self._asked.get(view["pid"]):
                self._asked[view["pid"]] = asked
                note(f"process {view['pid']} asks: {'; '.join(_questions(calls))}")
                note(f"hint: mains answer {view['pid']} TEXT --call {calls[0]['asks']}")


def _questions(calls: Sequence[View]) -> Iterator[str]:
    return (shorten(call["question"], _QUESTION_CHARS) for call in calls if call["question"])


class Lines(_Looks):
    """A line for each change of a state: for logs and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, str] = {}

    def show(self, views: Sequence[View]) -> None:
        for view in views:
            state = f"{view['state']} {view['reason']}".strip()
            if self._known.get(view["pid"]) != state:
                self._known[view["pid"]] = state
                line = f"process {view['pid']} {name_of(view)}: {state} ({view['tokens']:,} tokens)"
                note(clean(line))


class LiveTable(_Looks):
    """A table on a terminal that is drawn again as things change."""

    def wait(self, client: Client, pid: int) -> Waited:
        from rich.live import Live

        with ExitStack() as stack:
            self._console = console(stderr=True)
            self._live: Live = stack.enter_context(Live(console=self._console, auto_refresh=False))
            return super().wait(client, pid)

    def show(self, views: Sequence[View]) -> None:
        rows_max = max(4, self._console.height - 4)
        self._live.update(_live_table(views, rows_max, self._console.width), refresh=True)


def _live_table(views: Sequence[View], rows_max: int, width: int) -> RenderableType:
    """The processes, those at work first when there are more than fit; and the sum."""
    from rich.console import Group
    from rich.text import Text

    ordered = as_tree(views)
    if len(ordered) > rows_max:
        busiest = sorted(ordered, key=lambda each: _AT_WORK.index(each[1]["state"]))[:rows_max]
        shown = {view["pid"] for _, view in busiest}
        ordered = [each for each in ordered if each[1]["pid"] in shown]
    rows = [
        (
            str(view["pid"]),
            "  " * depth + shorten(name_of(view), max(8, 40 - 2 * depth)),
            view["state"],
            view["reason"],
            f"{view['tokens']:,}",
        )
        for depth, view in ordered
    ]
    ended = sum(view["state"] == "EXITED" for view in views)
    total = sum(view["tokens"] for view in views)
    foot = Text(f"{ended} of {len(views)} ended, {total:,} tokens", style="dim")
    heads = ("PID", "PROGRAM", "STATE", "REASON", "TOKENS")
    return Group(table(heads, rows, right=("PID", "TOKENS"), give="REASON", width=width), foot)


class Stream:
    """What the models say, as it comes: the process itself at once, those below it line by line.

    `notices` were watched before the process was started, so that nothing is missed.
    """

    def __init__(self, notices: Iterator[View]) -> None:
        self._notices = notices
        self._lines: dict[int, str] = {}
        self._open = False
        self._family: set[int] = set()

    def wait(self, client: Client, pid: int) -> Waited:
        """Text goes to standard error: standard output is for the result."""
        from mains.daemon.client import CutOffError

        self._family.add(pid)
        settled, outcome = client.wait_once(pid, 0)
        try:
            while not settled and (notice := next(self._notices, _CUT)) is not _CUT:
                self._hear(client, pid, notice)
                if not notice or (notice["kind"] in _SETTLES and notice["pid"] in self._family):
                    settled, outcome = client.wait_once(pid, 0)
        except CutOffError as error:
            note(f"{error}; the process goes on")
        finally:
            self._break_line()
        return (True, outcome) if settled else client.wait(pid)

    def _hear(self, client: Client, root: int, notice: View) -> None:
        kind, pid = notice.get("kind"), notice.get("pid", 0)
        if kind == "spawned" and pid not in self._family:
            self._family |= {view["pid"] for view in client.below(root)}
        if pid not in self._family:
            return
        if kind == "delta":
            self._say(root, pid, notice["text"])
        elif kind in ("replied", "evicted", "ask_failed", "exited"):
            self._finish(root, pid)

    def _say(self, root: int, pid: int, text: str) -> None:
        text = clean(text, lines=True)
        if pid == root:
            _write(text)
            self._open = not text.endswith("\n")
            return
        *whole, rest = (self._lines.get(pid, "") + text).split("\n")
        self._lines[pid] = rest
        for line in whole:
            self._say_line(pid, line)

    def _finish(self, root: int, pid: int) -> None:
        if pid == root:
            self._break_line()
        elif rest := self._lines.pop(pid, ""):
            self._say_line(pid, rest)

    def _say_line(self, pid: int, line: str) -> None:
        self._break_line()
        note(f"{pid} | {line}")

    def _break_line(self) -> None:
        if self._open:
            note("")
            self._open = False


def _write(text: str) -> None:
    typer.echo(text, err=True, nl=False)


def display_of(as_json: bool, notices: Iterator[View] | None) -> Display:
    """The display that fits: `notices` are there when the text is wanted as it comes."""
    if notices is not None:
        return Stream(notices)
    if as_json:
        return Nothing()
    return LiveTable() if sys.stderr.isatty() else Lines()
