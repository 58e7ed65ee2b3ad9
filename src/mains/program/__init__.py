"""Programs: a Markdown file in plain language, validated and content-addressed; and the inputs it is given.

    parse, load, load_tree      text, a file, a file and all that it spawns -> Program, Tree
    bind, bind_child            what a caller, or a model, gave -> Bound
    fill                        a program's prose with its inputs in place
    notes                       what `mains check` says beside mistakes
    head, plain_text, estimate_tokens, parse_grant, parse_tokens, input_schema, is_name, is_segment, is_workspace,
    append_segments

This package knows no kernel: it never checks whether a tool or a model exists. Everything it gives is frozen,
and every size, count and depth is bounded. `docs/programs.md` is the reference of the format.
"""

from mains.program.assistant import ours
from mains.program.fields import nearest, parse_tokens
from mains.program.inputs import Bound, bind, bind_child, fill, input_schema
from mains.program.inputspec import PROMPT, InputSpec
from mains.program.plain import plain_text
from mains.program.program import BANDS, Program, is_name, load, notes, parse
from mains.program.prose import BYTES_PER_TOKEN, estimate_tokens, head
from mains.program.schedule import Schedule, local_zone, with_zone, zone_of
from mains.program.segmentname import SEGMENT_RULE, is_segment
from mains.program.textfile import FileText, read_text_file
from mains.program.toolgrant import NOTE_SCOPES, ToolGrant, append_segments, note_scopes, parse_grant
from mains.program.toollimit import PER_S, Limits, Where, parse_limits
from mains.program.tree import Tree, load_tree
from mains.program.workspacename import WORKSPACE_RULE, is_workspace

__all__ = [
    "BANDS",
    "BYTES_PER_TOKEN",
    "NOTE_SCOPES",
    "PER_S",
    "PROMPT",
    "SEGMENT_RULE",
    "WORKSPACE_RULE",
    "Bound",
    "FileText",
    "InputSpec",
    "Limits",
    "Program",
    "Schedule",
    "ToolGrant",
    "Tree",
    "Where",
    "append_segments",
    "bind",
    "bind_child",
    "estimate_tokens",
    "fill",
    "head",
    "input_schema",
    "is_name",
    "is_segment",
    "is_workspace",
    "load",
    "load_tree",
    "local_zone",
    "nearest",
    "note_scopes",
    "notes",
    "ours",
    "parse",
    "parse_grant",
    "parse_limits",
    "parse_tokens",
    "plain_text",
    "read_text_file",
    "with_zone",
    "zone_of",
]
