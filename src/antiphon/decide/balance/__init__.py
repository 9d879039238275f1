"""The catalogue of balancing strategies: each module of this folder is one, under its own name.

A strategy is a module with a class `Strategy` and the constants `KEEPS_WEIGHTS` and `AVOIDS_FAILING`, which are
promises. Adding one is adding a file; `tests/unit/test_balance.py` runs the laws on it by itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from antiphon.decide.balancing import Balancer
from antiphon.errors import UnknownMethod

DEFAULT = "peak_ewma"


@cache
def strategies() -> dict[str, Balancer]:
    """Return every strategy by name, in alphabetical order."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {
        name: Balancer(
            name,
            (module.__doc__ or "").partition("\n")[0],
            module.Strategy,
            module.KEEPS_WEIGHTS,
            module.AVOIDS_FAILING,
        )
        for module in modules
        for name in [module.__name__.rpartition(".")[2]]
    }


def strategy(name: str) -> Balancer:
    """Return the strategy of that name; raises `UnknownMethod`, which names the ones there are."""
    known = strategies()
    if name not in known:
        raise UnknownMethod(f"no balancing strategy {name!r}; there are {', '.join(known)}")
    return known[name]
