"""Schedule: when a program runs by itself. `schedule: 0 7 * * *`, or a mapping with more. Pure.

    schedule:
      cron: 0 7 * * MON-FRI         minute, hour, day of month, month, day of week
      timezone: Europe/Berlin       without it: this machine's, as of the start
      catch_up: latest              of slots missed while nothing ran: latest (the last one), all, or none
      overlap: skip                 when the run before has not ended yet: skip the slot, or allow it

Each time the expression names is a slot. Where clocks change we follow Debian's cron (as the library `cronsim` does):
a job of a fixed time in the hour that is left out runs right after it, one in the hour that comes twice runs once;
a job whose hour is `*` follows the clock on the wall.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from mains.errors import Mistake
from mains.program.fields import nearest, read_choice, read_text, shown
from mains.program.frontmatter import Node, Pairs, Scalar

CATCH_UP = ("latest", "all", "none")
OVERLAP = ("skip", "allow")
FIELDS = 5
_KEYS = ("cron", "timezone", "catch_up", "overlap")


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a program runs. `timezone` is an IANA name; empty until a process has it, for the machine's own."""

    cron: str
    timezone: str = ""
    catch_up: str = "latest"
    overlap: str = "skip"

    def slots(self, after_ms: int) -> Iterator[int]:
        """The slots after a time, in order; all times in milliseconds since 1970 (UTC)."""
        from cronsim import CronSim

        start = datetime.fromtimestamp(after_ms / 1_000, zone_of(self.timezone))
        for slot in CronSim(self.cron, start):
            yield int(slot.timestamp() * 1_000)

    def at(self, slot_ms: int) -> str:
        """A slot on the clock of its time zone, ISO 8601."""
        return datetime.fromtimestamp(slot_ms / 1_000, zone_of(self.timezone)).isoformat(timespec="seconds")


def zone_of(name: str) -> ZoneInfo:
    """The time zone of this name; of no name, UTC. Raises ValueError for a name that is none."""
    try:
        return ZoneInfo(name or "UTC")
    except (OSError, KeyError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError; a folder's name, an OSError
        raise ValueError(f"{shown(name)} is no time zone: write an IANA name, such as Europe/Berlin") from error


def with_zone(schedule: Schedule) -> Schedule:
    """`schedule` with a time zone: its own, or this machine's."""
    return schedule if schedule.timezone else msgspec.structs.replace(schedule, timezone=local_zone())


def local_zone() -> str:
    """The name of this machine's time zone."""
    import tzlocal

    return tzlocal.get_localzone_name() or "UTC"


def read_schedule(node: Node, faults: list[Mistake]) -> Schedule | None:
    """The value of `schedule:`; None when nothing is written, or when it is wrong."""
    pairs = node.pairs if isinstance(node, Pairs) else ((Scalar(node.line, "cron", plain=True), node),)
    fields = {key.text: each for key, each in pairs}
    before = len(faults)
    for key, _ in pairs:
        if key.text not in _KEYS:
            faults.append(Mistake(key.line, f"`schedule`: unknown key {shown(key.text)}{nearest(key.text, _KEYS)}"))
    null = Scalar(node.line, "", plain=True)
    zone = fields.get("timezone")
    schedule = Schedule(
        cron=_read_cron(fields.get("cron", null), faults),
        timezone=_read_zone(zone, faults) if zone else "",
        catch_up=read_choice(fields.get("catch_up", null), "schedule.catch_up", CATCH_UP, "latest", faults),
        overlap=read_choice(fields.get("overlap", null), "schedule.overlap", OVERLAP, "skip", faults),
    )
    return schedule if len(faults) == before else None


def _read_cron(node: Node, faults: list[Mistake]) -> str:
    from cronsim import CronSim, CronSimError

    cron = " ".join(read_text(node, "schedule", faults).split())
    if not cron:
        return ""
    try:
        if len(cron.split()) != FIELDS:
            raise CronSimError(f"{len(cron.split())} fields")
        next(CronSim(cron, datetime(2026, 1, 1, tzinfo=zone_of(""))))
    except (CronSimError, StopIteration) as error:
        told = "write minute, hour, day of month, month and day of week, such as `0 7 * * MON-FRI`"
        faults.append(
            Mistake(node.line, f"`schedule`: {shown(cron)} names no times ({str(error) or 'it never comes'}): {told}")
        )
    return cron


def _read_zone(node: Node, faults: list[Mistake]) -> str:
    name = read_text(node, "schedule.timezone", faults)
    try:
        zone_of(name)
    except ValueError as error:
        faults.append(Mistake(node.line, f"`schedule.timezone`: {error}"))
    return name
