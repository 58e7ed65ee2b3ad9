"""The notebook: notes as a person sees and changes them. Part of the desk (`Desk.notes`).

    ls(scope, program, account, every)    notes, by number
    show(number)                          one, also when it is no more
    add(text, program, account, pid)      a new one
    edit(number, text)                    another text: a note by the person, in place of that one
    remove(number)                        away with it, also in forks; its text is erased

A change reaches each process that sees the note at its next turn. A process keeps what it was shown before, as part of
its history.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from mains.errors import LimitError, NotFoundError, UsageError
from mains.kernel import accounts, notes
from mains.kernel.care import Care
from mains.kernel.context import whole_text
from mains.kernel.main import Kernel
from mains.kernel.notes import Note
from mains.kernel.pages import Rows
from mains.kernel.tx import Tx
from mains.program import NOTE_SCOPES, is_name
from mains.settings import Settings


class NoteView(msgspec.Struct, frozen=True):
    """A note as a person sees it.

    `owners`: a pid, and those of its forks that have it too; ACCOUNT/PROGRAM; or ACCOUNT. `process` made it in its
    turn `turn`, when it was running `program`, and the event `seq` says so; 0: a person did. `tainted`: what untrusted
    its maker had read (empty: nothing). `text` is None once it is erased.
    """

    id: int
    scope: str
    owners: list[str]
    text: str | None
    state: Literal["stands", "replaced", "forgotten"]
    process: int
    program: str
    turn: int
    seq: int
    made_at: str
    tainted: str
    replaces: int
    replaced_by: int


class Notebook:
    """The notes of a home. See the module's header."""

    def __init__(self, kernel: Kernel, care: Care) -> None:
        self._kernel = kernel
        self._care = care

    async def ls(self, *, scope: str = "", program: str = "", account: str = "", every: bool = False) -> list[NoteView]:
        """Notes of a scope, of a program, of an account (empty: any); those that are no more when `every` is asked."""
        if scope not in ("", *NOTE_SCOPES):
            raise UsageError(f"a scope is one of {', '.join(NOTE_SCOPES)}, not `{scope[:40]}`")

        def wanted(note: Note) -> bool:
            place, _, name = note.owner.partition("/")
            fits = scope in ("", note.scope) and program in ("", name or note.program)
            return fits and (account in ("", place) and (not account or note.scope != "process"))

        def read() -> list[NoteView]:
            with self._kernel.journal.snapshot():
                found = [Note(*row) for row in self._kernel.journal.rows("note_scan")]
                return _views(self._kernel.journal.rows, [note for note in found if wanted(note)], every=every)

        return await asyncio.to_thread(read)

    async def show(self, number: int) -> NoteView:
        """One note. Raises NotFoundError."""

        def read() -> list[NoteView]:
            with self._kernel.journal.snapshot():
                rows = self._kernel.journal.rows
                return _views(rows, notes.by_number(rows, number), every=True)

        for view in await asyncio.to_thread(read):
            return view
        raise _absent(number)

    async def add(self, text: str, *, program: str = "", account: str = "", pid: int = 0) -> NoteView:
        """Note something for a process (`pid`), for a program on an account, or for an account (empty: home)."""
        settings = self._kernel.settings
        for what, given in (("text", text), ("program", program), ("account", account)):
            _check_text(what, given)
        if pid and (program or account):
            raise UsageError("a note is for a process, or for a program or an account, not for both")
        number = await self._kernel.order(lambda tx: _add(tx, settings, text, program, account, pid), "note")
        return await self.show(number)

    async def edit(self, number: int, text: str) -> NoteView:
        """Put a text of the person in place of a note's; the new note. The taint is gone: the person vouches for it."""
        settings = self._kernel.settings
        _check_text("text", text)
        new = await self._kernel.order(lambda tx: _edit(tx, settings, number, text), "note")
        await self._care.erase_forgotten()
        return await self.show(new)

    async def remove(self, number: int) -> NoteView:
        """Take a note away, and erase its text."""
        await self._kernel.order(lambda tx: _remove(tx, number), "note")
        await self._care.erase_forgotten()
        return await self.show(number)


def _add(tx: Tx, settings: Settings, text: str, program: str, account: str, pid: int) -> int:
    if pid:
        if tx.process(pid) is None:
            raise NotFoundError(f"there is no process {pid}", hint="`mains ps --all` lists every process")
        scope, owner = "process", str(pid)
    else:
        place = accounts.named(tx, account or "home").name
        if "/" in place:
            raise UsageError(f"`{place}` is a program's account", hint="name the program with --program")
        if program and not is_name(program):
            raise UsageError(f"`{program[:40]}` is no program's name")
        scope, owner = ("program", f"{place}/{program}") if program else ("user", place)
    _check(tx, settings, scope, owner, text, more=True)
    return notes.remember(tx, _by_person(tx, scope, owner, program, 0), text)


def _edit(tx: Tx, settings: Settings, number: int, text: str) -> int:
    new, held = 0, _standing(tx, number)
    for each in held:
        _check(tx, settings, each.scope, each.owner, text, more=False)
    for each in held:
        maker = _by_person(tx, each.scope, each.owner, each.program, each.id)
        new = notes.remember(tx, maker, text, new)
    return new


def _remove(tx: Tx, number: int) -> None:
    for each in _standing(tx, number):
        notes.forget(tx, each, by_person=True)


def _standing(tx: Tx, number: int) -> list[Note]:
    """The note as each of its owners has it. Raises NotFoundError, UsageError."""
    found = [each for each in notes.by_number(tx.rows, number) if each.scope != "process" or _lives(tx.rows, each)]
    if not found:
        raise _absent(number)
    standing = [each for each in found if not each.ended]
    if not standing:
        after = found[0].replaced_by
        raise UsageError(f"note:{number} is no more", hint=f"note:{after} stands in its place" if after else "")
    return standing


def _by_person(tx: Tx, scope: str, owner: str, program: str, replaces: int) -> Note:
    return Note(0, owner, scope, "", 0, program, 0, "", replaces, tx.now_ms, 0, 0)


def _check(tx: Tx, settings: Settings, scope: str, owner: str, text: str, *, more: bool) -> None:
    if fault := notes.check(tx, settings, scope, owner, text, more=more):
        raise LimitError(fault) if "notes_max" in fault else UsageError(fault)


def _absent(number: int) -> NotFoundError:
    return NotFoundError(f"there is no note {number}", hint="`mains note ls` lists notes")


def _lives(rows: Rows, note: Note) -> bool:
    """Whether the process of a note has not been removed."""
    return bool(rows("process_state", int(note.owner)))


def _views(rows: Rows, found: list[Note], *, every: bool) -> list[NoteView]:
    """Each note once, whoever has it."""
    by_number: dict[int, list[Note]] = {}
    for note in found:
        if (every or not note.ended) and (note.scope != "process" or _lives(rows, note)):
            by_number.setdefault(note.id, []).append(note)
    return [_view(rows, held) for held in by_number.values()]


def _view(rows: Rows, held: list[Note]) -> NoteView:
    """A note that several may have: where it stands, it is told of those."""
    held = [note for note in held if not note.ended] or held
    note = held[0]
    stored: list[Any] = rows("page_get", note.page) if not note.ended else []
    return NoteView(
        id=note.id, scope=note.scope, owners=[each.owner for each in held],
        text=stored[0][0].decode() if stored else None,
        state="replaced" if note.replaced_by else "forgotten" if note.ended else "stands",
        process=note.process, program=note.program, turn=note.turn, seq=note.seq,
        made_at=datetime.fromtimestamp(note.made_ms / 1_000, UTC).isoformat(timespec="seconds"),
        tainted=note.tainted, replaces=note.replaces, replaced_by=note.replaced_by,
    )  # fmt: skip


def _check_text(what: str, text: str) -> None:
    if whole_text(text) != text:
        raise UsageError(f"the {what} is no Unicode text: it holds half a character")
