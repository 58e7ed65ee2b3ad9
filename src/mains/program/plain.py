"""Markdown to plain prose, for models that are distracted by anything else.

`plain_text` drops badges, images, HTML, code blocks, tables and link targets, and what marks headings,
quotations and bold text. It is pure, never raises, never makes the text longer, takes linear time on any
text, and leaves a plain text as it is: `plain_text(plain_text(x)) == plain_text(x)`. It reads the
reStructuredText of package descriptions well enough (directives are dropped). It is no Markdown parser: it
looks for what to leave out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PASSES_MAX = 8
"""What one pass uncovers (a tag within a tag) goes in the next; deeper than this the signs themselves are
dropped.
"""

_SIGNS = str.maketrans("", "", "<>[]|`~#*&")
_REST_LINK_END = re.compile(r"[ \t]?`__?(?!\w)")

_HIDDEN = (
    ("<!--", "-->"),
    ("<script", "</script>"),
    ("<style", "</style>"),
    ("<svg", "</svg>"),
    ("<pre", "</pre>"),
    ("<table", "</table>"),
)
_TAG = re.compile(r"</?[A-Za-z!?][^<>]{0,2000}>")
_TARGET = re.compile(r"\([^()\n]{0,1000}(?:\([^()\n]{0,300}\)[^()\n]{0,1000})?\)|\[[^\[\]\n]{0,300}\]")
_DEFINITION = re.compile(r" {0,3}\[[^\[\]\n]{1,300}\]:[ \t]*\S")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_MARKS = re.compile(r"[ \t]{0,3}(?:#{1,6}(?=[ \t])|>)[ \t]?")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+•]|[0-9]{1,9}[.)])[ \t]")
_TABLE_RULE = re.compile(r"[ \t]*[|+]?[ \t]*:?[-=]{2,}[-=:|+ \t]*")
_BOLD = re.compile(r"(?<![\w*])\*\*(?=[^\s*])([^*\n]{1,500})(?<=\S)\*\*(?![\w*])")
_ENTITIES = (("&nbsp;", " "), ("&quot;", '"'), ("&#39;", "'"), ("&apos;", "'"), ("&amp;", "&"))


def plain_text(markdown: str) -> str:
    """The prose of `markdown`."""
    text = markdown.replace("\r\n", "\n").replace("\r", "\n")
    for _ in range(_PASSES_MAX):
        after = _pass(text)
        if after == text:
            return text
        text = after
    return _tidied(_from_first_word(line) for line in text.translate(_SIGNS).split("\n"))


def _pass(text: str) -> str:
    lines = _without_tables(list(_without_code(text.split("\n"))))
    body = "\n".join(lines)
    for opening, closing in _HIDDEN:
        body = _without_hidden(body, opening, closing)
    body = _without_targets(_TAG.sub("", body))
    body = _REST_LINK_END.sub("", _BOLD.sub(r"\1", body)).replace("`", "")
    for entity, char in _ENTITIES:
        body = body.replace(entity, char)
    return _tidied(_without_marks(body.split("\n")))


def _without_code(lines: list[str]) -> Iterator[str]:
    """Without fenced blocks, indented blocks and reStructuredText directives (`.. name::` and what is
    indented).
    """
    fence, indent_cut, in_list, blank = "", False, False, True
    for line, above in zip(lines, ["", *lines], strict=False):
        if fence:
            ends = line.strip()
            fence = "" if ends.startswith(fence) and not ends.strip(fence[0]) else fence
            continue
        found = _FENCE.match(line)
        if found and "`" not in line[found.end() :] and not _is_underline(line, above):
            fence = found[1]
            continue
        empty, indented = not line.strip(), line.startswith((" ", "\t"))
        directive = line.startswith(".. ")
        deep = line.startswith(("    ", "\t")) and blank and not in_list
        if directive or (not empty and indented and (indent_cut or deep)):
            indent_cut = True
            continue
        if not empty:
            indent_cut = False
            in_list = bool(_LIST_ITEM.match(line)) or (in_list and indented)
        blank = empty
        yield line


def _is_underline(line: str, above: str) -> bool:
    """Whether the tildes below a heading of reStructuredText, which are as long as it is."""
    return bool(above.strip()) and not line.strip().strip("~") and len(line.rstrip()) >= len(above.rstrip())


def _without_tables(lines: list[str]) -> list[str]:
    """Without rows: lines that begin with a bar, and the lines around a rule `---|---` as far as they hold
    bars.
    """
    kept: list[str] = []
    in_table = False
    for line in lines:
        bare = line.strip()
        rule = "|" in bare and bool(_TABLE_RULE.fullmatch(line))
        if rule and kept and "|" in kept[-1]:
            kept.pop()
        in_table = rule or (in_table and "|" in bare)
        row = bare.startswith("|") and bare.count("|") > 1
        grid = bare.startswith(("+-", "+=")) and bare.endswith("+")
        if not (in_table or row or grid):
            kept.append(line)
    return kept


def _without_hidden(text: str, opening: str, closing: str) -> str:
    """Without everything from each `opening` to its `closing`."""
    pieces: list[str] = []
    start = 0
    while (begin := text.find(opening, start)) >= 0:
        end = text.find(closing, begin + len(opening))
        if end < 0:
            break
        pieces.append(text[start:begin])
        start = end + len(closing)
    pieces.append(text[start:])
    return "".join(pieces)


def _without_targets(text: str) -> str:
    """Links become their text, images nothing; other brackets stay."""
    out: list[str] = []
    opened: list[int] = []
    at = 0
    for found in re.finditer(r"!?\[|\]", text):
        if found.start() < at:
            continue  # within a target that is left out
        out.append(text[at : found.start()])
        at = found.end()
        if found[0] != "]":
            opened.append(len(out))
            out.append(found[0])
            continue
        target = _TARGET.match(text, at) if opened else None
        begin = opened.pop() if opened else 0
        if not target:
            out.append("]")
            continue
        if out[begin] == "![":
            del out[begin:]
        else:
            out[begin] = ""
        at = target.end()
    out.append(text[at:])
    return "".join(out)


def _without_marks(lines: list[str]) -> Iterator[str]:
    """Without link definitions and lines that hold no word; without the marks of headings and quotations."""
    for line in lines:
        if _DEFINITION.match(line) or (line.strip() and not any(char.isalnum() for char in line)):
            continue
        yield _MARKS.sub("", line, count=1) if _MARKS.match(line) else line


def _from_first_word(line: str) -> str:
    return line[next((at for at, char in enumerate(line) if char.isalnum()), len(line)) :]


def _tidied(lines: Iterator[str]) -> str:
    """Without white space at line ends and without more than one empty line in a row."""
    kept: list[str] = []
    for line in lines:
        bare = line.rstrip()
        if bare or (kept and kept[-1]):
            kept.append(bare)
    return "\n".join(kept).strip()
