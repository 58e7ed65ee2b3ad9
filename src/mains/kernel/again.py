"""Again: the inputs that a process has, bound to another version of its program. It reads the journal and no file."""

from __future__ import annotations

from typing import Any

import msgspec

from mains.errors import SyscallError, UsageError
from mains.kernel import pages
from mains.kernel.context import StoredInput
from mains.kernel.journal import Journal
from mains.kernel.process import Process
from mains.program import Bound, FileText, Program, bind_child
from mains.settings import Settings


def bind_again(journal: Journal, p: Process, program: Program, settings: Settings) -> tuple[Bound, ...]:
    """The inputs of `p` for `program`; those that it does not take any more are left out.

    Raises UsageError when it needs one that `p` does not have, or one of another type.
    """
    known = {spec.name for spec in program.accepts}
    given: dict[str, Any] = {}
    files: dict[str, FileText] = {}
    for stored in msgspec.json.decode(pages.read(journal, p.inputs), type=list[StoredInput]):
        if stored.name not in known:
            continue
        texts = [FileText(file.name, pages.read(journal, file.page).decode()) for file in stored.files]
        files |= {text.name: text for text in texts}
        names = [text.name for text in texts]
        value = msgspec.json.decode(stored.value)
        given[stored.name] = names if stored.type == "folder" else names[0] if names else value
    try:
        return bind_child(program, given, settings, files)
    except SyscallError as error:
        hint = f"`mains exec {p.pid} FILE name=value` gives inputs anew"
        raise UsageError(f"the new version does not take the inputs of process {p.pid}: {error}", hint=hint) from error
