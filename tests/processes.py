"""Nodes and masters that are programs of their own, to be killed and frozen by tests; each ended with its test."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

from fabrics import NatsFabric

MASTER = """
import asyncio, sys
from antiphon.app import master
from antiphon.settings import Settings

name, url, prefix = sys.argv[1:]
settings = Settings(prefix=prefix, caller_per_minute=0, heartbeat_ms=100)
asyncio.run(master(settings, nats=url, name=name, is_open=True))
"""


class Processes:
    """Programs on one fabric; `node` is what a node runs: it gets its name, its instance, the URL and the prefix."""

    def __init__(self, fabric: NatsFabric, node: str) -> None:
        self.fabric = fabric
        self.stack = ExitStack()
        self._node = node

    def start(self, name: str, instance: str) -> subprocess.Popen[bytes]:
        """Start a node."""
        return self._start(self._node, name, instance)

    def start_master(self, name: str) -> subprocess.Popen[bytes]:
        """Start a master."""
        return self._start(MASTER, name)

    def _start(self, program: str, *names: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", program, *names, self.fabric.url, self.fabric.prefix])
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process
