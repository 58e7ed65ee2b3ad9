"""The world of the kernel's tests, for devices too."""

from __future__ import annotations

from tests.unit.kernel.conftest import world

__all__ = ["world"]
