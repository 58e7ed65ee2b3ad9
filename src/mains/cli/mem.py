"""The verb that looks at memory: mem, of one process or of the home."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, OptionalPid, daemon_of
from mains.cli.pagemap import gauge, key, rows
from mains.cli.render import clean, console, note, say, say_json, shorten, table
from mains.errors import UsageError

View = Mapping[str, Any]

_GAUGE_MAX = 60
_KEY_MIN = 20
_LABEL = 9  # characters before each line of what is told


@app.command(epilog="Examples: mains mem; mains mem 3; mains mem 3 --pages")
def mem(
    pid: OptionalPid = None,
    pages: Annotated[bool, typer.Option("--pages", help="List the pages of the process, too.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the pages of a process, or all memory.

    Each page of the process is a cell: its letter says what it is, a small letter that it was evicted from the frame.
    Without PID: what the home holds, and how much of it is shared.
    """
    if pid is None and pages:
        raise UsageError("--pages lists the pages of a process", hint="name it: `mains mem PID --pages`")
    client = daemon_of(home)
    if pid is None:
        view = client.memory()
        say_json(view) if as_json else _say_home(view)
        return
    view = client.mem(pid)
    if as_json:
        say_json(view)
        return
    width = console().width
    _say_lines(summary(view, width), width)
    say("")
    _draw(view, width)
    if pages:
        say("")
        _say_pages(view)


def summary(view: View, width: int) -> Iterator[str]:
    """How the memory of a process stands and how it did, in lines."""
    yield f"process {view['pid']}: {view['program']}, {view['state']} {view['reason']}".strip()
    used, window = view["frame_tokens"], view["window_tokens"]
    share = f" ({100 * used / window:.0f} %)" if window else ""
    beside = f"beside {view['reserve_tokens']:,} of tools and {view['answer_tokens']:,} of the answer"
    yield _line("frame", f"about {used:,} of {window:,} tokens{share}, {beside}")
    if not view["context_tokens"]:
        yield _line("", "how much the engine takes is not known")
    if (room := min(_GAUGE_MAX, width - _LABEL)) > 2:
        yield _line("", gauge(used, window, (view["low_tokens"], view["high_tokens"]), room))
    yield _line("", f"above {view['high_tokens']:,} it evicts, down to {view['low_tokens']:,}")
    standing = f", {view['standing']:,} in place of others" if view["standing"] else ""
    evicted = f", {view['evicted']:,} evicted" if view["evicted"] else ""
    yield _line("pages", f"{view['resident']:,} in the frame ({view['pinned']:,} pinned{standing}){evicted}")
    yield from _history(view)


def _history(view: View) -> Iterator[str]:
    faults = view["faults"]
    looked = [f"{faults[name]:,} by {name}" for name in ("recall", "read") if faults[name]]
    looked += [f"{faults['prefetched']:,} unasked"] if faults["prefetched"] else []
    told = [{1: "once", 2: "twice"}.get(view["evictions"], f"{view['evictions']:,} times")]
    told += [f"{view['parts']:,} pages shown in part from the start"] if view["parts"] else []
    told += [f"looked up again: {', '.join(looked)}"] if looked else []
    if view["evictions"] or len(told) > 1:
        yield _line("evicted", "; ".join(told))
    if view["calls"] > 1:
        later = view["calls"] - 1
        share = 100 * view["stable"] / later
        yield _line("prefix", f"{share:.1f} % of {later:,} calls after the first began with the whole frame before")
    if view["input_tokens"]:
        share = 100 * view["cached_tokens"] / view["input_tokens"]
        yield _line("cached", f"{share:.1f} % of {view['input_tokens']:,} input tokens")


def _say_lines(lines: Iterable[str], width: int) -> None:
    """Lines that are too long for the terminal go on below where they began."""
    for line in lines:
        indent = " " * _LABEL if width > 2 * _LABEL else ""
        for part in textwrap.wrap(clean(line), max(1, width), subsequent_indent=indent):
            say(part)


def _line(name: str, text: str) -> str:
    return f"{name:<{_LABEL}}{text}"


def _draw(view: View, width: int) -> None:
    from rich.text import Text

    out = console()
    for row in rows(view["pages"], width):
        drawn = Text(no_wrap=True, overflow="crop")
        for style, text in row:
            drawn.append(text, style)
        drawn.rstrip()
        out.print(drawn)
    say("")
    told = [each.replace(" ", "\N{NO-BREAK SPACE}") for each in key(view["pages"])]  # one is not broken in two
    for line in textwrap.wrap(", ".join(told), max(_KEY_MIN, width)):
        say(line.replace("\N{NO-BREAK SPACE}", " "))


def _say_pages(view: View) -> None:
    out = console()
    heads = ("HANDLE", "KIND", "WHERE", "TOKENS", "BYTES", "TURN", "USED", "BEGINS")
    cells = [
        (
            handle_of(page),
            page["kind"],
            page["where"],
            f"{page['tokens']:,}",
            f"{page['bytes']:,}",
            str(page["turn"] or ""),
            str(page["used"] or ""),
            shorten(page["words"], 120),
        )
        for page in view["pages"]
    ]
    out.print(table(heads, cells, right=("TOKENS", "BYTES", "TURN", "USED"), give="BEGINS", width=out.width))


def handle_of(page: View) -> str:
    """The handle of a page; of one that stands for others, theirs."""
    if page["handle"]:
        return str(page["handle"])
    if page["position"] < 0:
        return "opening"
    first, last = page["position"], page["until"] - 1
    return f"for mem:{first}" if first == last else f"for mem:{first}-{last}"


def size(count: int) -> str:
    """Bytes, in the unit that leaves at most three digits before the point."""
    number, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1_000:
            break
        number, unit = number / 1_000, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{number:.1f} {unit}"


def _say_home(view: View) -> None:
    _say_lines(home_lines(view), console().width)
    if view["shared"]:
        say("\nmost shared")
        _say_shared(view["shared"])
    if view["frames"]:
        say("\nlargest frames")
        _say_frames(view["frames"])
    else:
        note("no process has a context yet")


def _say_shared(shared: Sequence[View]) -> None:
    out = console()
    cells = [
        (f"{each['processes']:,}", each["kind"], f"{each['bytes']:,}", shorten(each["words"], 120)) for each in shared
    ]
    heads = ("PROCESSES", "KIND", "BYTES", "BEGINS")
    out.print(table(heads, cells, right=("PROCESSES", "BYTES"), give="BEGINS", width=out.width))


def _say_frames(frames: Sequence[View]) -> None:
    out = console()
    cells = [
        (
            str(each["pid"]),
            shorten(each["program"], 28),
            each["state"],
            f"{each['frame_tokens']:,}",
            f"{each['window_tokens']:,}" if each["window_tokens"] else "",
            f"{each['pages']:,}",
        )
        for each in frames
    ]
    heads = ("PID", "PROGRAM", "STATE", "TOKENS", "WINDOW", "PAGES")
    out.print(table(heads, cells, right=("PID", "TOKENS", "WINDOW", "PAGES"), give="PROGRAM", width=out.width))


def home_lines(view: View) -> Iterator[str]:
    """What a home holds, in lines."""
    kinds = sorted(view["kinds"].items(), key=lambda each: -each[1]["bytes"])
    listed = ", ".join(f"{kind} {size(held['bytes'])}" for kind, held in kinds)
    yield _line("pages", f"{view['pages']['pages']:,}, {size(view['pages']['bytes'])}{f': {listed}' if listed else ''}")
    yield _line("contexts", f"{view['contexts']:,} processes with {view['entries']:,} pages")
    own, once = size(view["entry_bytes"]), size(view["stored_bytes"])
    yield _line("sharing", f"{view['ratio']:.1f} times: {own} if each had its own, {once} stored")
    if view["covers"]:
        yield _line("evicted", f"{view['covers']:,} times something was put in place of pages")
    index = size(view["index_bytes"]) if view["index_bytes"] else "none yet"
    yield _line("files", f"database {size(view['database_bytes'])}, search index {index}")
