"""Ready-made nodes: content that is served with no code, one file a connector, found by looking into this folder."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import chain
from types import ModuleType

from antiphon.connectors.base import Connector

__all__ = ["Connector", "catalogue"]


@cache
def catalogue() -> dict[str, type[Connector]]:
    """Return kind -> connector for every file of this folder that defines one, in alphabetical order.

    It imports those files, which keep what is slow to import inside their functions.
    """
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__) if not found.ispkg]
    return {cls.kind: cls for cls in sorted(chain.from_iterable(map(_connectors, modules)), key=lambda cls: cls.kind)}


def _connectors(module: ModuleType) -> Iterator[type[Connector]]:
    """Yield the connectors that a module defines itself; what it only imports belongs to another one."""
    for value in vars(module).values():
        if (
            inspect.isclass(value)
            and value.__module__ == module.__name__
            and issubclass(value, Connector)
            and not inspect.isabstract(value)
        ):
            yield value
