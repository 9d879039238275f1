"""The catalogue of fusion methods: each module of this folder is one, under its own name.

A method is a module with a function `fuse(question, replies) -> Fusing` and a constant `KEEPS_NODE_ORDER`: whether hits
of one node never change places with each other. Adding one is adding a file; `tests/unit/test_fuse.py` runs the laws on
it by itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from antiphon.decide.fusing import Fusion
from antiphon.errors import UnknownMethod

DEFAULT = "evidence"


@cache
def methods() -> dict[str, Fusion]:
    """Return every method by name, in alphabetical order."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {
        name: Fusion(name, (module.__doc__ or "").partition("\n")[0], module.fuse, module.KEEPS_NODE_ORDER)
        for module in modules
        for name in [module.__name__.rpartition(".")[2]]
    }


def method(name: str) -> Fusion:
    """Return the method of that name; raises `UnknownMethod`, which names the ones there are."""
    known = methods()
    if name not in known:
        raise UnknownMethod(f"no fusion method {name!r}; there are {', '.join(known)}")
    return known[name]
