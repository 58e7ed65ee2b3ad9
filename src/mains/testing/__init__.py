"""Public fakes for tests of programs, devices and of Mains itself.

FakeClock       time that moves only when the test says so
CrashProbe      ends the world at the n-th crash point; counts and names them when n is never reached
ScriptedEngine  an engine that answers from a script or a function (`engines/scripted.py`)
ScriptedDevice  a device that answers from a list or a function
Simulation      a whole kernel with everything that can go wrong, from a seed
RuleBroken      what a simulation raises, with the story that led to it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mains.engines.scripted import ScriptedEngine
from mains.testing.clock import FakeClock
from mains.testing.device import ScriptedDevice
from mains.testing.probe import CrashProbe

if TYPE_CHECKING:
    from mains.testing.simulation import Simulation
    from mains.testing.story import RuleBroken

__all__ = ["CrashProbe", "FakeClock", "RuleBroken", "ScriptedDevice", "ScriptedEngine", "Simulation"]


def __getattr__(name: str) -> object:
    """The simulation is the whole kernel: it is loaded when it is asked for."""
    if name == "Simulation":
        from mains.testing.simulation import Simulation

        return Simulation
    if name == "RuleBroken":
        from mains.testing.story import RuleBroken

        return RuleBroken
    raise AttributeError(name)
