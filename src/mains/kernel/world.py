"""The world: what operations know besides their transaction. Read-only.

Settings, programs by their pages, the tools that devices offer now, the user's rules about them, which engine a
program's model is, and what a call costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mains.kernel.grants import Rule
from mains.kernel.ports import Tool
from mains.kernel.process import Route
from mains.kernel.tariff import Tariffs
from mains.kernel.toolset import YIELDING
from mains.program import Program, parse
from mains.settings import Settings


class World:
    """What operations know besides their transaction."""

    def __init__(
        self,
        settings: Settings,
        tools: Callable[[], Sequence[Tool]],
        rules: Callable[[], Sequence[Rule]],
        route: Callable[[tuple[str, ...]], Route],
        workspaces: Path,
        tariffs: Tariffs,
        currency: str,
    ) -> None:
        self.settings = settings
        self.tools = tools  # those that devices offer now, by their whole names
        self._looked_at: Sequence[Tool] = ()
        self._taken: frozenset[str] = frozenset()
        self._by_name: dict[str, Tool] = {}
        self.rules = rules  # as they are now
        self.route = route
        self.workspaces = workspaces
        self.tariffs = tariffs
        self.currency = currency
        self.reach_ms = round(settings.model_timeout_s * 1_000)  # how long after its hold a call may reach its engine
        self._programs: dict[bytes, Program] = {}

    @property
    def taken(self) -> frozenset[str]:
        """The syscalls whose name a device has now."""
        self._look()
        return self._taken

    def as_now(self, tool: Tool) -> Tool:
        """A tool that a process was offered, with what its user says of it now; as it was, if it is gone."""
        self._look()
        return self._by_name.get(tool.name, tool)

    def _look(self) -> None:
        if (tools := self.tools()) is not self._looked_at:
            self._looked_at = tools
            self._taken = YIELDING.intersection(tool.name for tool in tools)
            self._by_name = {tool.name: tool for tool in tools}

    def program(self, source: bytes) -> Program:
        """The program of a page (parsed once; the page was checked when it was stored)."""
        if source not in self._programs:
            if len(self._programs) >= self.settings.programs_max * 16:
                self._programs.clear()
            self._programs[source] = parse(source.decode(), "a stored program", self.settings)
        return self._programs[source]
