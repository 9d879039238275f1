"""A testing kit for programs on Antiphon: a bus in memory, and virtual time, in which an hour takes milliseconds."""

from antiphon.bus.memory import MemoryServer
from antiphon.clock import VirtualClock
from antiphon.testing.virtual import Deadlock, VirtualLoop, virtual_run

__all__ = ["Deadlock", "MemoryServer", "VirtualClock", "VirtualLoop", "virtual_run"]
