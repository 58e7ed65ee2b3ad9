"""Style as a test: each rule of the house is a small function that yields what is wrong with one file.

`RULES` at the end is the whole list. Every rule runs over its files, and must also find the fault planted
beside it and accept the mended twin: a rule that cannot fail is no rule. Messages say what to do instead.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

BANNED_NAMES = {
    "util": "name the noun it works on",
    "utils": "one file, one noun: put each function beside what it works on",
    "helper": "say what it does, as a verb: parse_x, wait_x",
    "helpers": "one file, one noun: put each function beside what it works on",
    "common": "say what is shared: the type, the protocol, the rule",
    "base": "name the role (a Protocol in ports.py), or say of what: base_url",
    "manager": "name the thing itself: ledger, journal, mailbox, pool",
    "misc": "each part has a noun of its own: split it",
}

# Where a program's turn ends and becomes an exit record. One file, one handler.
BROAD_EXCEPT_ALLOWED = frozenset({"src/mains/kernel/main.py"})

# A2A owns the word task and MCP owns the word session: their types may use it where we speak to them.
BORROWED_WORDS = frozenset({"session", "sessions", "task", "tasks"})
PROTOCOL_FOLDERS = frozenset({"a2a", "bus", "conformance"})

# Put together here, so that this file passes its own rule.
REGISTRY_NAMES = (
    *("pypi." + end for end in ("org", "python.org")),
    *("npmjs." + end for end in ("org", "com")),
    *(host + ".org" for host in ("pythonhosted", "deb.debian", "security.debian", "maven.apache", "rubygems")),
    *(host + ".io" for host in ("crates", "anaconda")),
    "proxy.golang" + ".org",
    *("/opt/" + folder for folder in ("wheels", "pypi")),
)


@dataclass(frozen=True)
class Source:
    """One file: its path below the root, with forward slashes, and its text."""

    path: str
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of a Python file; none of any other file."""
        return list(ast.walk(ast.parse(self.text))) if self.path.endswith(".py") else []


Rule = Callable[[Source], Iterator[str]]
Read = Callable[[], tuple[Source, ...]]


def long_file(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > FILE_LINES_MAX and "/static/" not in source.path:
        yield f"{source.path}: {lines} lines, at most {FILE_LINES_MAX}; it holds more than one noun: split it"


def long_function(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield (
                    f"{source.path}:{node.lineno}: {node.name} has {lines} lines,"
                    f" at most {FUNCTION_LINES_MAX}; give each step a name: decide, act, record"
                )


def words(name: str) -> list[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]


def defined_names(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What a node defines, as (kind, name)."""
    match node:
        case ast.ClassDef(name=name):
            yield "class", name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield "function", name
        case ast.arg(arg=name) | ast.alias(asname=str(name)):
            yield "variable", name
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            yield "variable", name


def banned_name(source: Source) -> Iterator[str]:
    """Files and classes: no word may be banned. Functions and variables: the last word, which is the noun."""
    for part in source.path.split("/"):
        for word in words(part.partition(".")[0]):
            if word in BANNED_NAMES:
                yield f"{source.path}: file or folder named `{word}`: {BANNED_NAMES[word]}"
    for node in source.nodes:
        for kind, name in defined_names(node):
            checked = words(name) if kind == "class" else words(name)[-1:]
            for word in checked:
                if word in BANNED_NAMES:
                    line = getattr(node, "lineno", 0)
                    yield f"{source.path}:{line}: {kind} `{name}`: no `{word}`; {BANNED_NAMES[word]}"


def borrowed_word(source: Source) -> Iterator[str]:
    if PROTOCOL_FOLDERS & set(source.path.split("/")):
        return
    for node in source.nodes:
        if isinstance(node, ast.ClassDef) and BORROWED_WORDS & set(words(node.name)):
            yield f"{source.path}:{node.lineno}: class `{node.name}`; a running program is a process"


def is_broad(caught: ast.expr | None) -> bool:
    match caught:
        case None | ast.Name(id="Exception" | "BaseException"):
            return True
        case ast.Attribute(value=ast.Name(id="builtins"), attr="Exception" | "BaseException"):
            return True
        case ast.Tuple(elts=parts):
            return any(is_broad(part) for part in parts)
    return False


def broad_handlers(source: Source) -> Iterator[int]:
    """The lines of `except:`, `except Exception:`, `except BaseException:` and `suppress(Exception)`."""
    for node in source.nodes:
        match node:
            case ast.ExceptHandler(type=caught, lineno=line) if is_broad(caught):
                yield line
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=args):
                if any(is_broad(caught) for caught in args):
                    yield node.lineno


def broad_except(source: Source) -> Iterator[str]:
    allowed = 1 if source.path in BROAD_EXCEPT_ALLOWED else 0
    for line in sorted(broad_handlers(source))[allowed:]:
        yield f"{source.path}:{line}: broad except; name the errors that this place can do something about"


def unfinished(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), start=1):
        found = re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", line)
        if found and "/static/" not in source.path:
            yield f"{source.path}:{number}: `{found[0]}`; finish it, or leave it out and open an issue"


def sleeping_names(source: Source) -> dict[str, str]:
    """How the file calls each real sleep: its spelling there -> its full name."""
    spelled: dict[str, str] = {}
    for node in source.nodes:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name in ("time", "asyncio", "anyio"):
                        spelled[f"{alias.asname or alias.name}.sleep"] = f"{alias.name}.sleep"
            case ast.ImportFrom(module="time" | "asyncio" | "anyio" as module, names=names):
                for alias in names:
                    if alias.name == "sleep":
                        spelled[alias.asname or alias.name] = f"{module}.sleep"
    return spelled


def real_sleep(source: Source) -> Iterator[str]:
    spelled = sleeping_names(source)
    for node in source.nodes:
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in spelled:
            continue
        if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0:
            continue
        name = spelled[ast.unparse(node.func)]
        yield f"{source.path}:{node.lineno}: {name} in a test; wait for the event itself, or move a FakeClock"


def no_docstring(source: Source) -> Iterator[str]:
    if source.path.endswith(".py") and not ast.get_docstring(ast.parse(source.text)):
        yield f"{source.path}: no docstring; a header says purpose, interface, obligations and invariants"


SQL_BEGINS = re.compile(
    # as SQL is written: the verb in capitals
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE)\s"
    # or in any case, when a second keyword leaves no doubt
    r"|(?i:\s*(?:select\s.*\sfrom\s|insert\s+(?:or\s+\w+\s+)?into\s|update\s+\w+\s+set\s|delete\s+from\s"
    r"|create\s+(?:table|index|view|trigger|virtual|unique|temp)\b))",
    re.DOTALL,
)


def inline_sql(source: Source) -> Iterator[str]:
    for node in source.nodes:
        match node:
            case ast.Constant(value=str(text), lineno=line) if SQL_BEGINS.match(text):
                yield f"{source.path}:{line}: SQL in Python; give it a name in the .sql file beside it"


def named_registry(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), start=1):
        for name in REGISTRY_NAMES:
            if name in line.lower():
                yield f"{source.path}:{number}: names the registry or machine path `{name}`; say `the index`"


# ------------------------------------------------------------------------------------------- what they read


@cache
def read_below(folder: str) -> tuple[Source, ...]:
    """The text files that people write below a folder."""
    return tuple(
        Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".sql", ".html", ".css", ".js") and path.is_file()
    )


def read_src() -> tuple[Source, ...]:
    return read_below("src")


def read_tests() -> tuple[Source, ...]:
    return read_below("tests")


def read_both() -> tuple[Source, ...]:
    return read_src() + read_tests()


@cache
def read_committed() -> tuple[Source, ...]:
    """Every text file that git has or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so nothing here is committed")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    blobs = [(path, path.read_bytes()) for path in paths if path.is_file()]
    return tuple(
        Source(path.relative_to(ROOT).as_posix(), blob.decode("utf-8", errors="replace"))
        for path, blob in blobs
        if b"\0" not in blob[:8_000]
    )


class Checked(NamedTuple):
    """A rule, what it reads, a planted file that breaks it and the same file mended."""

    rule: Rule
    read: Read
    planted: Source
    mended: Source


def checked(rule: Rule, read: Read, planted: str, mended: str, path: str = "src/mains/page.py") -> Checked:
    return Checked(rule, read, Source(path, planted), Source(path, mended))


RULES = (
    checked(long_file, read_src, "x = 1\n" * (FILE_LINES_MAX + 1), "x = 1\n" * FILE_LINES_MAX),
    checked(
        long_function,
        read_src,
        "def boot():\n" + "    step()\n" * FUNCTION_LINES_MAX,
        "def boot():\n" + "    step()\n" * (FUNCTION_LINES_MAX - 1),
    ),
    checked(banned_name, read_both, "class PageManager: ...", "class PageTable: ..."),
    checked(banned_name, read_both, "def run_helper(): ...", "def common_prefix(base_url): ..."),
    checked(banned_name, read_both, "self.misc = 1", "self.rest = 1"),
    checked(borrowed_word, read_both, "class TaskTable: ...", "class ProcessTable: ..."),
    checked(borrowed_word, read_both, "class ChatSession: ...", "class Chat: ...\nsession = 1"),
    checked(broad_except, read_src, "try: f()\nexcept: g()", "try: f()\nexcept OSError: g()"),
    checked(broad_except, read_src, "try: f()\nexcept Exception: g()", "try: f()\nexcept* OSError: g()"),
    checked(
        broad_except,
        read_src,
        "try: f()\nexcept (OSError, BaseException): g()",
        "try: f()\nexcept (OSError, ValueError): g()",
    ),
    checked(broad_except, read_src, "with suppress(Exception): f()", "with suppress(OSError): f()"),
    checked(
        broad_except,
        read_src,
        "try: f()\nexcept Exception: g()\ntry: f()\nexcept Exception: g()",
        "try: f()\nexcept Exception: g()",
        path="src/mains/kernel/main.py",
    ),
    checked(unfinished, read_src, "x = 1  # TODO later", "x = 1  # done"),
    checked(unfinished, read_src, "raise NotImplementedError", "raise UsageError('no')"),
    checked(real_sleep, read_tests, "import time\ntime.sleep(1)", "import time\ntime.monotonic()"),
    checked(real_sleep, read_tests, "import asyncio\nasyncio.sleep(0.1)", "import asyncio\nasyncio.sleep(0)"),
    checked(real_sleep, read_tests, "from asyncio import sleep as nap\nnap(x)", "clock.sleep(1)"),
    checked(no_docstring, read_src, "x = 1", '"""What it is for."""'),
    checked(inline_sql, read_src, 'run("SELECT 1")', 'run("count_pages")'),
    checked(inline_sql, read_src, 'run(f"  delete from {table}")', 'route("/", methods=["DELETE"])'),
    checked(inline_sql, read_src, 'run("create table pages (hash)")', 'say("create a home first")'),
    checked(
        named_registry,
        read_committed,
        f"see https://{REGISTRY_NAMES[0]}/simple",
        "see https://example.org/simple",
        path="docs/page.md",
    ),
)

PLANTED = [pytest.param(each, id=f"{each.rule.__name__}-{n}") for n, each in enumerate(RULES)]
TREE = {each.rule.__name__: each for each in RULES}


@pytest.mark.parametrize("name", TREE)
def test_the_tree_is_tidy(name: str) -> None:
    rule, read, _, _ = TREE[name]
    faults = [fault for source in read() for fault in rule(source)]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.mark.parametrize("case", PLANTED)
def test_the_rule_finds_a_planted_fault(case: Checked) -> None:
    assert list(case.rule(case.planted))
    assert not list(case.rule(case.mended))


def test_the_rules_read_something() -> None:
    assert len(read_src()) > 1
    assert any(source.path == "tests/unit/test_tidy.py" for source in read_tests())


def test_one_place_may_catch_everything() -> None:
    assert len(BROAD_EXCEPT_ALLOWED) <= 1
