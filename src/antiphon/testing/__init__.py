"""A testing kit: a fabric in one process, seeded faults, virtual time, rehearsals of sagas (docs/testing.md)."""

from antiphon.bus.memory import MemoryServer
from antiphon.clock import VirtualClock
from antiphon.testing.faults import Fault, Faults
from antiphon.testing.fleet import TestFleet, found
from antiphon.testing.rehearsal import NoAnswer, Rehearsal
from antiphon.testing.virtual import Deadlock, VirtualLoop, virtual_run

__all__ = [
    "Deadlock",
    "Fault",
    "Faults",
    "MemoryServer",
    "NoAnswer",
    "Rehearsal",
    "TestFleet",
    "VirtualClock",
    "VirtualLoop",
    "found",
    "virtual_run",
]
