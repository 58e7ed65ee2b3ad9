"""The screen of `mains chat` and `mains attach`: what a process says above, what a person types below.

    TalkScreen(home, settings, pid).run()  -> exit code

The line that is typed stays at the bottom; whole lines are printed above it and scroll away like any output. One
thread listens (a lost daemon is started again, and the transcript goes on after the last event that was heard), the
clerk gives orders. A message has a key, so that it is sent again when its answer was lost, and still arrives once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples, to_formatted_text
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import default_ui_style

from mains.cli.board import cells_of, fitted
from mains.cli.clerk import Clerk, Order
from mains.cli.ending import exit_code
from mains.cli.render import clean
from mains.cli.scroll import BAD, DIM, Line, Scroll
from mains.cli.typed import goes_on, meant, open_history
from mains.daemon.client import Client, CutOffError
from mains.errors import DaemonError, MainsError
from mains.home import Home
from mains.settings import Settings

_PIECES = re.compile(r"\s+|\S+")
_BACK = 40  # messages of the context that are shown first
_BACK_LINES = 60  # and lines of them at most
_GATHER_S = 0.02  # what comes within this time is drawn together
_AGAIN_S = 0.2
_PARTS_MAX = 1_000  # that were heard and are not shown yet
_TRIES = 5
_HELP = """\
Enter sends. Alt-Enter, a \\ at the end of a line, or a block in \"\"\" makes another line.
Ctrl-C interrupts the answer; Ctrl-D leaves, and the process goes on.
/tokens  what it used    /resume  let it go on when it stopped    /end  end the process    /help"""


class TalkScreen:
    """See the module's header."""

    def __init__(self, home: Home, settings: Settings, pid: int) -> None:
        self._home = home
        self._settings = settings
        self._pid = pid
        self._scroll = Scroll()
        self._greeted = False
        self._ending = False
        self._code = 0
        self._unprinted: deque[Line] = deque()
        self._room = threading.Semaphore(_PARTS_MAX)
        self._news = asyncio.Event()
        self._clerk = Clerk(Client(home, settings), self._fail, lambda: None)
        self._prompting: PromptSession[int] = PromptSession(
            self._prompt,
            multiline=True,
            prompt_continuation="  ",
            key_bindings=self._bindings(),
            history=open_history(home.path / "history", settings.history_bytes_max),
            erase_when_done=True,
            enable_suspend=True,
        )
        self._app = self._prompting.app
        self._app.ttimeoutlen = 0.1

    def run(self) -> int:
        """Talk until the person leaves or the process has ended; the exit code."""
        code = self._prompting.prompt(pre_run=self._begin)
        if not self._clerk.close(self._settings.request_timeout_s):
            self._unprinted.append((BAD, "the daemon did not answer: what was sent last may be lost"))
        if self._scroll.exited is None:
            pid = self._pid
            self._unprinted.append(
                (DIM, f"process {pid} goes on; mains attach {pid} comes back, mains kill {pid} ends it")
            )
        self._write()
        return code

    def _begin(self) -> None:
        self._app.create_background_task(self._print())
        threading.Thread(target=self._listen, daemon=True).start()

    # what is heard

    def _listen(self) -> None:
        seq, ended = 0, False
        while not ended:
            client = Client(self._home, self._settings)
            try:
                for part in client.attach(self._pid, after_seq=seq, back=0 if seq else _BACK):
                    if part:
                        seq = max(seq, part.get("seq", 0))
                        ended = ended or part["kind"] == "exited"
                        self._room.acquire()
                        self._in_loop(partial(self._take, part))
            except CutOffError:
                self._in_loop(partial(self._say, DIM, "(the daemon is gone; it is started again)"))
            except MainsError as error:
                self._in_loop(partial(self._leave, str(error)))
                return
            if not ended:
                time.sleep(_AGAIN_S)

    def _in_loop(self, change: Callable[[], None]) -> None:
        if self._app.loop is not None:
            with contextlib.suppress(RuntimeError):  # the person has left
                self._app.loop.call_soon_threadsafe(change)

    def _take(self, part: Mapping[str, Any]) -> None:
        self._room.release()
        self._unprinted += self._scroll.hear(part)
        if not self._greeted and part["kind"] == "standing":
            self._greet(part)
        if self._scroll.exited is not None:
            self._end(self._scroll.exited)
        self._news.set()

    def _greet(self, standing: Mapping[str, Any]) -> None:
        self._greeted = True
        if (left_out := len(self._unprinted) - _BACK_LINES) > 0:
            for _ in range(left_out):
                self._unprinted.popleft()
            self._unprinted.appendleft((DIM, f"({left_out} earlier lines: mains show {self._pid})"))
        about = f"process {self._pid}: {standing['program']} on {standing['engine']} ({standing['model']})"
        self._say(DIM, clean(f"{about}; /help, Ctrl-D leaves it"))

    def _end(self, exited: Mapping[str, Any]) -> None:
        code, why = exited.get("code", 0), exited.get("name", "")
        told = f" with code {code}{f': {why}' if why else ''}" if code and not self._ending else ""
        self._say(DIM, clean(f"process {self._pid} has ended{told}"))
        self._code = 0 if self._ending else exit_code(True, {"exit_code": code})
        self._exit(self._code)

    def _leave(self, why: str) -> None:
        self._say(BAD, clean(f"error: {why}"))
        self._exit(1)

    def _exit(self, code: int) -> None:
        if not self._app.is_done:
            self._app.exit(result=code)

    # what is drawn

    def _say(self, style: str, text: str) -> None:
        self._unprinted += [(style, line) for line in text.split("\n")]
        self._news.set()

    async def _print(self) -> None:
        """Print what is whole above the prompt, and draw what is not."""
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(_GATHER_S)
            if self._app.is_done:
                return  # what is left is printed when the prompt is gone (`run`)
            if self._unprinted:
                self._app.renderer.erase()
                self._write()
            self._app.invalidate()

    def _write(self) -> None:
        """Print what was not printed yet. The terminal stays as it is: what is typed meanwhile is not echoed."""
        width = self._app.output.get_size().columns
        lines = [(style, row) for style, line in self._unprinted for row in wrapped(line, width, len(line) + 1)]
        self._unprinted.clear()
        text = to_formatted_text([(style, f"{line}\n") for style, line in lines])
        print_formatted_text(self._app.output, text, default_ui_style())

    def _prompt(self) -> StyleAndTextTuples:
        size = self._app.output.get_size()
        text: StyleAndTextTuples = []
        if self._scroll.live:
            for row in wrapped(self._scroll.live, size.columns, max(1, size.rows - 6)):
                text.append(("", f"{row}\n"))
        standing = self._scroll.standing
        text.append(("dim", f"{fitted(self._status(), size.columns).rstrip()}\n"))
        mark = "decide> " if standing.get("doubts") else "answer> " if standing.get("asks") else "> "
        return [*text, ("bold", mark)]

    def _status(self) -> str:
        """What it does, and what the person can do about it."""
        standing = self._scroll.standing
        if not standing:
            return "asking the daemon ..."
        waits = f"; {standing['unread']} unread" if standing["unread"] else ""
        used = f"; {standing['tokens']:,} tokens"
        if standing["doubts"]:
            return "in doubt: retry makes the call again, skip does not, done=JSON gives its result"
        if standing["asks"]:
            return "it asks you" + (f"; Ctrl-C interrupts{used}" if standing["conversation"] else used)
        if self._is_busy():
            doing = (
                "answering" if standing["state"] == "RUNNING" else f"{standing['state']} {standing['reason']}".strip()
            )
            stop = "Ctrl-C interrupts" if standing["conversation"] else "Ctrl-D leaves"
            return clean(f"{doing}; {stop}{waits}{used}")
        stands = standing["state"] in ("STOPPED", "EXITED")
        state = f"{standing['state']} ({standing['reason']}); /resume; " if stands else ""
        return clean(f"{state}Ctrl-D leaves; /help{waits}{used}")

    def _is_busy(self) -> bool:
        """Whether it works on something; a conversation at rest does not."""
        standing = self._scroll.standing
        rests = standing.get("conversation") and standing.get("reason", "").startswith(("message", "tidying"))
        return bool(standing) and standing["state"] not in ("STOPPED", "EXITED") and not rests

    # what is typed

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        typing = has_focus(DEFAULT_BUFFER)  # and not in the search through the history

        @bindings.add("escape", "enter", filter=typing)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @bindings.add("enter", eager=True, filter=typing)
        def _(event: KeyPressEvent) -> None:
            self._enter(event)

        @bindings.add("c-c", filter=typing)
        def _(event: KeyPressEvent) -> None:
            if self._is_busy() and self._scroll.standing["conversation"]:
                self._order(lambda client: _ignore(client.signal(self._pid, "INT")))
            elif event.current_buffer.text:
                event.current_buffer.reset()
            else:
                self._say(DIM, "Ctrl-D leaves, and the process goes on; /end ends it")

        @bindings.add("c-d", filter=typing)
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.delete()
            else:
                self._exit(0)

        return bindings

    def _enter(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        more = goes_on(buffer.text)
        if more is not None and buffer.document.is_cursor_at_the_end:
            buffer.text = more
            buffer.cursor_position = len(more)
            return
        text = meant(buffer.text)
        if text:
            buffer.append_to_history()
        buffer.reset()
        if not text:
            return
        if text.startswith("/") and "\n" not in text:
            self._command(text)
        elif self._scroll.standing.get("doubts") or self._scroll.standing.get("asks"):
            asked = self._scroll.standing.get("asked", "")  # what stands there now, whatever comes meanwhile
            self._order(lambda client: client.answer(self._pid, text, asked))
        else:
            self._order(partial(self._send, text=text, key=uuid.uuid4().hex))

    def _send(self, client: Client, *, text: str, key: str) -> None:
        """Send a message; again with the same key, when nobody knows whether it arrived."""
        for left in reversed(range(_TRIES)):
            try:
                client.send(self._pid, text, key)
                return
            except DaemonError:
                if not left:
                    raise
                time.sleep(_AGAIN_S)

    def _command(self, text: str) -> None:
        match text.split()[0]:
            case "/help":
                self._say(DIM, _HELP)
            case "/tokens":
                self._order(self._tell_tokens)
            case "/resume":
                self._order(lambda client: _ignore(client.signal(self._pid, "CONT")))
            case "/end":
                self._ending = True
                self._order(lambda client: _ignore(client.signal(self._pid, "TERM")))
            case other:
                self._say(BAD, f"there is no {clean(other)}; /help says what there is")

    def _tell_tokens(self, client: Client) -> None:
        from mains.cli.inspect import token_lines

        lines = "\n".join(token_lines(client.show(self._pid)))
        self._in_loop(partial(self._say, DIM, lines))

    def _order(self, order: Order) -> None:
        if not self._clerk.give(order):
            self._say(BAD, "the daemon is slow: too many orders wait")

    def _fail(self, error: MainsError) -> None:
        told = f"{error} ({error.hint})" if error.hint else str(error)
        self._in_loop(partial(self._say, BAD, clean(f"error: {told}")))


def _ignore(_: object) -> None:
    return


def wrapped(text: str, width: int, rows_max: int) -> list[str]:
    """The end of a text as rows of a terminal, at most `rows_max`, broken between words where there are any."""
    rows: list[str] = []
    for line in text.expandtabs(4).split("\n")[-rows_max:]:
        rows += _rows(line[max(0, len(line) - 2 * rows_max * width) :], width)
    return rows[-rows_max:]


def _rows(line: str, width: int) -> list[str]:
    rows, row, size = list[str](), "", 0
    for piece in _PIECES.findall(line):
        if size + cells_of(piece) > width and row.strip():
            rows.append(row.rstrip())
            row, size, piece = "", 0, piece.lstrip()
        for char in piece if size + cells_of(piece) > width else [piece]:
            if size + cells_of(char) > width:
                rows.append(row)
                row, size = "", 0
            row, size = row + char, size + cells_of(char)
    return [*rows, row]
