"""The daemon's client: synchronous, the standard library only, quick to import.

    with Client(home, settings) as daemon:
        pid = daemon.spawn("agent.md", {"question": "..."}, cwd=os.getcwd())
        outcome = daemon.wait(pid)

Answers are plain objects, as the routes give them (`app.py`). When no daemon answers, one is started, unless
`start=False` (then DaemonError). What a request raises is what the kernel raised. Every wait for the daemon is
bounded by `request_timeout_s` (`daemon_start_s` for a start).

A question (GET) that a dying daemon left unanswered is asked again, of the next one. An order (POST) is sent only
after the daemon has said hello on the same connection, and never twice: when its answer is lost, the caller is told.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPResponse
from typing import Any, Self

import msgspec

from mains import __version__
from mains.daemon import wire
from mains.daemon.connection import LINE_BYTES_MAX, LOST, Connection, Refused, begin, exchange, greets, target
from mains.daemon.deviceclient import DeviceClient
from mains.daemon.filesclient import FilesClient
from mains.daemon.launch import Start
from mains.daemon.segmentclient import SegmentClient
from mains.errors import DaemonError
from mains.home import Home
from mains.kernel.billing import Budget
from mains.settings import Settings

Object = dict[str, Any]

_LOSSES_MAX = 20  # daemons that die on one client before it gives up
_LOOK_S = 0.02
_OF_ACCOUNTS = ("accounts", "account", "budgets", "topups")
_OF_SEGMENTS = ("segments", "segment", "segment/remove")


class CutOffError(DaemonError):
    """The daemon died in the middle of a stream."""


class Client(SegmentClient, DeviceClient, FilesClient):
    """See the module's header. It may be used by one thread at a time."""

    def __init__(self, home: Home, settings: Settings, *, start: bool = True) -> None:
        self.home = home
        self._settings = settings
        self._may_start = start
        self._losses = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    # the daemon

    def hello(self) -> Object:
        """Who answers."""
        found: Object = self._ask("hello")
        return found

    def status(self) -> Object:
        """The daemon, its processes counted by state, its engines."""
        found: Object = self._ask("status")
        return found

    def engines(self) -> list[Object]:
        """How each engine is."""
        found: list[Object] = self._ask("engines")
        return found

    def down(self, *, only_idle: bool = False) -> bool:
        """Make the daemon end; False when it has something to do and `only_idle` is asked."""
        return bool(self._order("down", {"only_idle": only_idle})["down"])

    # processes

    def spawn(self, program: str, inputs: Mapping[str, Any], **options: Any) -> int:
        """Start a process (see `control.Control.spawn`); its pid."""
        return int(self._order("processes", {"program": program, "inputs": dict(inputs), **options})["pid"])

    def ps(self, *, every: bool = False) -> list[Object]:
        """The processes that have not ended, or every one."""
        found: list[Object] = self._ask("processes", all=int(every))
        return found

    def survey(self, *, every: bool = False, after_seq: int = 0) -> Object:
        """What `mains top` shows; with `after_seq`, when something has happened after that event (or in a second)."""
        found: Object = self._ask("survey", all=int(every), after_seq=after_seq)
        return found

    def below(self, pid: int) -> list[Object]:
        """A process and all below it."""
        found: list[Object] = self._ask(f"processes/{pid}/below")
        return found

    def show(self, pid: int) -> Object:
        """Everything about one process."""
        found: Object = self._ask(f"processes/{pid}")
        return found

    def outcome(self, pid: int) -> Object:
        """How a process stands."""
        found: Object = self._ask(f"processes/{pid}/outcome")
        return found

    def wait_once(self, pid: int, timeout_s: float) -> tuple[bool, Object]:
        """Wait for a bounded time: whether there is no more to wait for, and how the process stands."""
        answer = self._ask(f"processes/{pid}/wait", timeout_s=max(0.0, timeout_s))
        return answer["settled"], answer["outcome"]

    def wait(self, pid: int, timeout_s: float = float("inf")) -> tuple[bool, Object]:
        """Wait until a process has ended or cannot go on by itself, or the time is over."""
        due_s = time.monotonic() + timeout_s
        while True:
            settled, outcome = self.wait_once(pid, due_s - time.monotonic())
            if settled or time.monotonic() >= due_s:
                return settled, outcome

    def send(self, pid: int, text: str, key: str = "", *, rule: bool = False) -> int:
        """Put a message into a mailbox; its number."""
        return int(self._order(f"processes/{pid}/messages", {"text": text, "key": key, "rule": rule})["message"])

    def answer(self, pid: int, text: str, call: str = "") -> None:
        """Answer a question, or decide a call in doubt; of `call`, when it is given, and of no other."""
        self._order(f"processes/{pid}/answer", {"text": text, "call": call})

    def signal(self, pid: int, signal: str) -> list[int]:
        """Send INT, TERM, KILL, STOP or CONT; the pids that it changed."""
        changed: list[int] = self._order(f"processes/{pid}/signal", {"signal": signal})["pids"]
        return changed

    def signal_group(self, group: str, signal: str) -> list[int]:
        """Send a signal to every process of a group; the pids that it changed."""
        changed: list[int] = self._order("signals", {"group": group, "signal": signal})["pids"]
        return changed

    def exec(self, pid: int, program: str, inputs: Mapping[str, Any], cwd: str) -> bool:
        """Let a process run another program; whether anything changes."""
        body = {"program": program, "inputs": dict(inputs), "cwd": cwd}
        return bool(self._order(f"processes/{pid}/exec", body)["changed"])

    def restart(self, pid: int) -> bool:
        """Let a process run the newest version of its program; whether anything changes."""
        return bool(self._order(f"processes/{pid}/restart", {})["changed"])

    def fork(self, pid: int, at: int | None = None) -> int:
        """Fork a process, as it stands or as it stood after event `at`; the new pid."""
        return int(self._order(f"processes/{pid}/fork", {"at": at})["pid"])

    # memory

    def mem(self, pid: int) -> Object:
        """The page table of a process."""
        found: Object = self._ask(f"processes/{pid}/memory")
        return found

    def memory(self) -> Object:
        """The memory of the home."""
        found: Object = self._ask("memory")
        return found

    def seen(self, pid: int, at: int) -> Object:
        """What the model of a process was shown in the last call until event `at`."""
        found: Object = self._ask(f"processes/{pid}/seen", at=at)
        return found

    def diff(self, pid: int, other: int, *, full: bool = False) -> Object:
        """Where the contexts of two processes part."""
        found: Object = self._ask(f"processes/{pid}/diff", other=other, full=int(full))
        return found

    # accounts

    def account_add(self, name: str, *, under: str = "", zone: str = "", unknown_price: str = "") -> Object:
        """Make an account (see `accountdesk.AccountDesk.account_add`)."""
        body = {"name": name, "under": under, "zone": zone, "unknown_price": unknown_price}
        made: Object = self._order("accounts", body)
        return made

    def accounts(self) -> list[Object]:
        """The accounts with a name, and those of programs: the tree in order, the home first."""
        found: list[Object] = self._ask("accounts")
        return found

    def account(self, name: str) -> Object:
        """One account."""
        found: Object = self._ask("account", name=name)
        return found

    def account_set(self, name: str, unknown_price: str) -> Object:
        """Change what an account does about unknown prices; the account."""
        found: Object = self._order("account", {"name": name, "unknown_price": unknown_price})
        return found

    def budget_set(self, account: str, limits: Sequence[Budget]) -> Object:
        """Set limits of an account, or take them away; the account."""
        body = {"account": account, "limits": [msgspec.structs.asdict(each) for each in limits]}
        found: Object = self._order("budgets", body)
        return found

    def topup(self, account: str, *, tokens: int = 0, nano: int = 0, key: str = "") -> Object:
        """Give more room to the current windows of an account, once for a key; the account."""
        found: Object = self._order("topups", {"account": account, "tokens": tokens, "nano": nano, "key": key})
        return found

    def meter(self, **query: str | int) -> list[Object]:
        """What was metered (see `accountdesk.AccountDesk.meter`)."""
        found: list[Object] = self._ask("meter", **query)
        return found

    def statement(self, account: str, month: str) -> Object:
        """A month of an account."""
        found: Object = self._ask("statement", account=account, month=month)
        return found

    # notes

    def notes(self, **query: str | int) -> list[Object]:
        """Notes (see `kernel/notebook.py`)."""
        found: list[Object] = self._ask("notes", **query)
        return found

    def note(self, number: int) -> Object:
        """One note."""
        found: Object = self._ask(f"notes/{number}")
        return found

    def note_order(self, path: str = "", **body: str | int) -> Object:
        """Add a note; or, with a path, edit (`/3`) or forget one (`/3/forget`). The note after it."""
        found: Object = self._order(f"notes{path}", body)
        return found

    # care

    def remove(self, pids: Sequence[int]) -> Object:
        """Erase ended processes and the ended trees below them: `pids`, and whether all is `erased`."""
        found: Object = self._order("remove", {"pids": list(pids)})
        return found

    def prune(self, older_than_days: float | None, *, dry_run: bool) -> Object:
        """Erase who ended so long ago (None: `retention_days`), or only say who that is."""
        found: Object = self._order("prune", {"older_than_days": older_than_days, "dry_run": dry_run})
        return found

    # streams

    def watch(self) -> Iterator[Object]:
        """What happens from now on, of every process; an empty object when all is quiet."""
        return self._lines("watch")

    def log(self, pid: int, *, after_seq: int = 0, follow: bool = False) -> Iterator[Object]:
        """The diary of a process, an entry at a time; an empty object when all is quiet."""
        return self._lines(f"processes/{pid}/log", after_seq=after_seq, follow=int(follow))

    def attach(self, pid: int, *, after_seq: int = 0, back: int = 0) -> Iterator[Object]:
        """The transcript of a process (`daemon/transcript.py`); an empty object when all is quiet."""
        return self._lines(f"processes/{pid}/attach", after_seq=after_seq, back=back)

    def export(self) -> Iterator[Object]:
        """Every event of the journal."""
        return filter(None, self._lines("journal/export"))

    def verify(self, what: str) -> list[str]:
        """The faults of the `journal` or the `ledger`."""
        for line in self._lines(f"{what}/verify"):
            if line:
                return list(line["faults"])
        raise DaemonError("the daemon ended before it had an answer")

    # how it is asked

    def _ask(self, path: str, **query: object) -> Any:
        """A question: asked again of the next daemon when this one dies or ends."""
        return self._again(lambda connection: exchange(connection, "GET", target(path, query)))

    def _order(self, path: str, body: Mapping[str, Any]) -> Any:
        """An order: sent once, to a daemon that has said hello."""

        return self._again(lambda opened: _sent(opened, path, lambda: exchange(opened, "POST", target(path, {}), body)))

    def _order_lines(self, path: str, body: Mapping[str, Any]) -> Iterator[Object]:
        """The same, for an order that is answered by lines."""

        def send(opened: Connection) -> Any:
            return opened, _sent(opened, path, lambda: begin(opened, "POST", target(path, {}), body))

        return self._read_lines(*self._again(send, keep=True))

    def _lines(self, path: str, **query: object) -> Iterator[Object]:
        def send(opened: Connection) -> Any:
            return opened, begin(opened, "GET", target(path, query))

        return self._read_lines(*self._again(send, keep=True))

    def _read_lines(self, connection: Connection, response: HTTPResponse) -> Iterator[Object]:
        try:
            while line := response.readline(LINE_BYTES_MAX):
                found = json.loads(line) if line.strip() else {}
                if "error" in found:
                    raise wire.unpack(found)
                if found == wire.END:
                    return
                yield found
            raise _cut_off()
        except (*LOST, ValueError) as error:
            raise _cut_off() from error
        except TimeoutError as error:
            raise self._silent() from error
        finally:
            connection.close()

    def _again(self, make: Any, *, keep: bool = False) -> Any:
        """Do an exchange over a new connection; start a daemon when none is there, and do it again."""
        while True:
            connection = Connection(self.home, self._settings.request_timeout_s)
            kept = False
            try:
                answer = make(connection)
                kept = keep
                return answer
            except TimeoutError as error:
                raise self._silent() from error
            except (*LOST, FileNotFoundError, Refused) as error:
                self._losses += 1
                if not self._may_start or self._losses > _LOSSES_MAX:
                    raise DaemonError("no daemon answers", hint="`mains up` starts one") from error
            except OSError as error:
                raise DaemonError(f"{self.home.socket}: {error.strerror or error}") from error
            finally:
                if not kept:
                    connection.close()
            self._start()

    def _silent(self) -> DaemonError:
        text = f"the daemon did not answer within {self._settings.request_timeout_s:g} s (request_timeout_s)"
        return DaemonError(text, hint="`mains doctor` says what is wrong")

    def _start(self) -> None:
        """Start a daemon and wait until one says hello. Raises what kept it from starting: ConfigError, DaemonError."""
        limit_s = self._settings.daemon_start_s
        due_s = time.monotonic() + limit_s
        started = Start(self.home, self._settings)
        while (left_s := due_s - time.monotonic()) > 0:
            if greets(self.home, left_s):
                started.release()
                return
            code = started.ended()
            if code == 0:  # it found another daemon, which may have ended since
                started = Start(self.home, self._settings)
            elif code is not None:
                raise started.complaint()
            time.sleep(_LOOK_S)
        raise DaemonError(f"no daemon answered within {limit_s:g} s (daemon_start_s)", hint=f"its log: {started.log}")


def _sent(connection: Connection, path: str, send: Callable[[], Any]) -> Any:
    """Send an order, once the daemon has said hello on this connection. Raises DaemonError when its answer is lost."""
    greeting = exchange(connection, "GET", target("hello", {}))
    if path != "down":
        _check_version(greeting)
    try:
        return send()
    except LOST as error:
        text = "the daemon ended before it answered; nobody knows whether it did what was asked"
        raise DaemonError(text, hint=f"`mains {_looks(path)}` shows what there is") from error


def _check_version(greeting: Mapping[str, Any]) -> None:
    if greeting["version"] != __version__:
        text = f"the daemon (process {greeting['pid']}) is Mains {greeting['version']}, this is {__version__}"
        raise DaemonError(text, hint="`mains down` ends it; the next command starts one of this version")


def _cut_off() -> CutOffError:
    return CutOffError("the daemon ended in the middle of its answer", hint="ask again: a new one is started")


def _looks(path: str) -> str:
    """The verb that shows what an order to this path may have changed."""
    if path in _OF_ACCOUNTS:
        return "account ls"
    if path.startswith("device"):
        return "device ls"
    if path in _OF_SEGMENTS:
        return "segment ls"
    if path.endswith("/files/undo"):
        return f"files log {path.split('/')[1]}"
    return "note ls" if path.startswith("notes") else "ps --all"
