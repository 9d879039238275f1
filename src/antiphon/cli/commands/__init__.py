"""The commands: each module has one `command`, an `App` of its own name; adding a command is adding a file."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from cyclopts import App


def catalogue() -> Iterator[App]:
    """Yield the command of every file of this folder, in alphabetical order; none imports what its work needs."""
    for found in pkgutil.iter_modules(__path__):
        yield import_module(f"{__name__}.{found.name}").command
