"""What a benchmark reports: figures with their goals, as a table on the screen and as JSON in `bench/results`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One number. With a goal, `met` says whether it is reached; a quick run is too short to tell."""

    what: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None


class Report(msgspec.Struct, frozen=True):
    """The figures of one benchmark, the load around it, and notes on what was measured."""

    name: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()


class Saved(msgspec.Struct, frozen=True):
    """A report as it is kept."""

    at: str
    machine: str
    load_before: float
    load_after: float
    quick: bool
    report: Report


def at_least(what: str, value: float, unit: str, goal: float) -> Figure:
    """A figure that should not be below its goal."""
    return Figure(what, value, unit, f"at least {goal:,g}", value >= goal)


def below(what: str, value: float, unit: str, goal: float) -> Figure:
    """A figure that should stay below its goal."""
    return Figure(what, value, unit, f"under {goal:,g}", value < goal)


def table(reports: list[Report]) -> str:
    """All figures as plain text, a line each, and the notes below."""
    rows = [("benchmark", "figure", "value", "unit", "goal", "")]
    for report in reports:
        for figure in report.figures:
            verdict = "" if figure.met is None else "met" if figure.met else "MISSED"
            rows.append((report.name, figure.what, _shown(figure.value), figure.unit, figure.goal, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    notes = [f"{report.name}: {note}" for report in reports for note in report.notes]
    return "\n".join([*lines, "", *notes])


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [f"{cell:{'>' if at == 2 else '<'}{widths[at]}}" for at, cell in enumerate(row)]
    return "  ".join(cells).rstrip()


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def save(folder: Path, report: Report, *, machine: str, loads: tuple[float, float], quick: bool) -> None:
    """Keep a report as `NAME.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    saved = Saved(at, machine, *loads, quick=quick, report=report)
    (folder / f"{report.name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(saved)) + b"\n")
