"""A testing kit for programs on Antiphon: virtual time, in which an hour of timers passes in milliseconds."""

from antiphon.clock import VirtualClock
from antiphon.testing.virtual import Deadlock, VirtualLoop, virtual_run

__all__ = ["Deadlock", "VirtualClock", "VirtualLoop", "virtual_run"]
