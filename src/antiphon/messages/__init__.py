"""The messages of Antiphon, one module a conversation.

`catalogue()` finds every declared message, so that schemas, permissions and the protocol's documentation need no
list of their own: a new message is one class in one file of this folder.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable
from functools import cache
from types import ModuleType

from antiphon.messages.base import Fact, Message, Request

Routed = type[Request[Message]] | type[Fact]


@cache
def catalogue() -> dict[str, type[Message]]:
    """Return every message class by name, in alphabetical order."""
    return _declared(importlib.import_module(module.name) for module in pkgutil.iter_modules(__path__, __name__ + "."))


def routed() -> dict[str, Routed]:
    """Return the messages that travel on a subject of their own: requests and facts."""
    return _travelling(catalogue())


def loaded() -> dict[str, Routed]:
    """Return those of `routed` that this process has imported: all that it can have sent or served so far."""
    ours = [name for name in sys.modules if name.startswith(__name__ + ".")]
    return _travelling(_declared(sys.modules[name] for name in ours))


def _declared(modules: Iterable[ModuleType]) -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Message) and value.__module__ == module.__name__:
                found[value.__name__] = value
    roots = {"Message", "Request", "Fact"}
    return {name: found[name] for name in sorted(found) if name not in roots and "[" not in name}


def _travelling(messages: dict[str, type[Message]]) -> dict[str, Routed]:
    return {name: message for name, message in messages.items() if issubclass(message, (Request, Fact))}
