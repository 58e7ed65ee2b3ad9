"""The policies by name, in the order in which tables show them."""

from __future__ import annotations

from collections.abc import Callable

from bench.fair.policies.barrier import Barrier
from bench.fair.policies.dlpm import Dlpm
from bench.fair.policies.fcfs import Fcfs
from bench.fair.policies.mains import Mains
from bench.fair.policies.plas import Plas
from bench.fair.policies.rounds import Rounds
from bench.fair.policies.rpm import Rpm
from bench.fair.policies.vtc import Vtc
from bench.fair.policy import Policy, Site

POLICIES: dict[str, Callable[[Site], Policy]] = {
    "FCFS": Fcfs,
    "round robin": Rounds,
    "1 s barrier": Barrier,
    "RPM limit": Rpm,
    "VTC": Vtc,
    "PLAS": Plas,
    "DLPM": Dlpm,
    "Mains": Mains,
}
