"""The device `time`: what time it is, the same moment elsewhere, and how far two moments are apart.

Moments are written as ISO 8601 has them: 2026-11-28T09:30, with or without an offset (+01:00, Z). One without is of the
zone that is named, else of this machine's. Zones are names such as Europe/Berlin, of the tz database.
"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Any

from mains.bus.devices.refused import Refused, shown
from mains.kernel.clock import Clock, SystemClock
from mains.kernel.ports import CallContext, Done, Failed, Schema, Tool

_MOMENT: Schema = {"type": "string", "description": "such as 2026-11-28T09:30+01:00, or `now`"}
_ZONE: Schema = {"type": "string", "description": "such as Europe/Berlin or UTC"}
_CHARACTERS_MAX = 64


def _tool(name: str, description: str, *required: str, **properties: Schema) -> Tool:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return Tool(name, description, schema, read_only=True, idempotent=True)


_TOOLS = (
    _tool("now", "What time it is, here or in a zone.", zone=_ZONE),
    _tool("convert", "The same moment in another zone.", "moment", "to", moment=_MOMENT, to=_ZONE, zone=_ZONE),
    _tool(
        "difference",
        "How much time lies between two moments.",
        "start",
        "end",
        start=_MOMENT,
        end=_MOMENT,
        zone=_ZONE,
    ),
)


class Time:
    """The device. `clock` is whose time it tells; `local` names the zone of this machine, if not the system's."""

    name = "time"

    def __init__(self, clock: Clock | None = None, local: str = "") -> None:
        self._clock = clock or SystemClock()
        self._local = local

    def tools(self) -> Sequence[Tool]:
        """now, convert, difference."""
        return _TOOLS

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Tell it."""
        try:
            zone = self._zone(arguments.get("zone", ""))
            if tool == "now":
                return Done(_told(self._moment("now", zone)))
            if tool == "convert":
                return Done(_told(self._moment(arguments["moment"], zone).astimezone(self._zone(arguments["to"]))))
            return Done(_span(self._moment(arguments["start"], zone), self._moment(arguments["end"], zone)))
        except Refused as refused:
            return Failed(str(refused))
        except OverflowError:
            return Failed("no calendar goes so far: the years 1 to 9999 are known")

    async def close(self) -> None:
        """Nothing to free."""

    def _zone(self, name: str) -> zoneinfo.ZoneInfo:
        if not name:
            import tzlocal

            name = self._local or tzlocal.get_localzone_name() or "UTC"
        try:
            return zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            told = "no zone that is known; zones are named like Europe/Berlin"
            raise Refused(f"{shown(name[:_CHARACTERS_MAX])}: {told}") from error

    def _moment(self, text: str, zone: zoneinfo.ZoneInfo) -> datetime.datetime:
        if text.strip().lower() == "now":
            return datetime.datetime.fromtimestamp(self._clock.now_ms() // 1_000, zone)
        try:
            moment = datetime.datetime.fromisoformat(text.strip()[:_CHARACTERS_MAX])
        except ValueError as error:
            told = "no moment; write it like 2026-11-28T09:30 or 2026-11-28T09:30+01:00"
            raise Refused(f"{shown(text[:_CHARACTERS_MAX])}: {told}") from error
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _told(moment: datetime.datetime) -> str:
    """A moment for a model: ISO 8601 with its offset, the day of the week and the zone."""
    zone = moment.tzinfo.key if isinstance(moment.tzinfo, zoneinfo.ZoneInfo) else moment.tzname()
    return f"{moment.isoformat()} ({_DAYS[moment.weekday()]}, {zone})"


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _span(start: datetime.datetime, end: datetime.datetime) -> str:
    """What lies between: exact seconds (clocks that change are heeded), and in words."""
    utc = datetime.UTC
    span = end.astimezone(utc) - start.astimezone(utc)
    total = round(abs(span).total_seconds())
    days, rest = divmod(total, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    named = ((days, "day"), (hours, "hour"), (minutes, "minute"), (seconds, "second"))
    words = ", ".join(f"{count:,} {unit}{'' if count == 1 else 's'}" for count, unit in named if count) or "nothing"
    sign = "-" if span < datetime.timedelta(0) else ""
    return f"{sign}{total} s: {words}{', backwards' if sign else ''}"
