"""The messages of Antiphon, one module a conversation.

`catalogue()` finds every declared message, so that schemas, permissions and the protocol's documentation need no
list of their own: a new message is one class in one file of this folder.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from antiphon.messages.base import Fact, Message, Request

Routed = type[Request[Message]] | type[Fact]


@cache
def catalogue() -> dict[str, type[Message]]:
    """Return every message class by name, in alphabetical order."""
    found: dict[str, type[Message]] = {}
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Message) and value.__module__ == module.name:
                found[value.__name__] = value
    roots = {"Message", "Request", "Fact"}
    return {name: found[name] for name in sorted(found) if name not in roots and "[" not in name}


def routed() -> dict[str, Routed]:
    """Return the messages that travel on a subject of their own: requests and facts."""
    return {name: message for name, message in catalogue().items() if issubclass(message, (Request, Fact))}
