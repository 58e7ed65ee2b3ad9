"""Mains, the operating system for AI agents.

    async with mains.open(home) as kernel:
        pid = await kernel.spawn("agent.md", {"question": "..."})
        print((await kernel.wait(pid)).result)

Names are loaded when first used: `import mains` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mains.bus.function import device
    from mains.compose import open  # noqa: A004 - `mains.open` is what its users read
    from mains.engines.scripted import ScriptedEngine
    from mains.errors import DeviceError, MainsError, NotFoundError
    from mains.home import Home
    from mains.kernel.ports import CallContext, Done, Failed, Outcome, Signal, Tool
    from mains.settings import Settings

__version__ = "0.1.0"
__all__ = [
    "CallContext",
    "DeviceError",
    "Done",
    "Failed",
    "Home",
    "MainsError",
    "NotFoundError",
    "Outcome",
    "ScriptedEngine",
    "Settings",
    "Signal",
    "Tool",
    "device",
    "open",
]

_HOMES = {
    "CallContext": "mains.kernel.ports",
    "DeviceError": "mains.errors",
    "Done": "mains.kernel.ports",
    "Failed": "mains.kernel.ports",
    "Home": "mains.home",
    "MainsError": "mains.errors",
    "NotFoundError": "mains.errors",
    "Outcome": "mains.kernel.ports",
    "ScriptedEngine": "mains.engines.scripted",
    "Settings": "mains.settings",
    "Signal": "mains.kernel.ports",
    "Tool": "mains.kernel.ports",
    "device": "mains.bus.function",
    "open": "mains.compose",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `mains` has no attribute `{name}`")
    return getattr(importlib.import_module(_HOMES[name]), name)
