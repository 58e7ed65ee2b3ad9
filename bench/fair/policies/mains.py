"""Mains: the very Lane of `mains.kernel.scheduler`, told what the kernel tells it and nothing more."""

from __future__ import annotations

from bench.fair.call import Call
from bench.fair.policy import Quiet, Site


class Mains(Quiet):
    """The lane of one engine."""

    def __init__(self, site: Site) -> None:
        raise NotImplementedError
