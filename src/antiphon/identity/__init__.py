"""Keys, tokens and the auth callout's codec: the only package that touches cryptography.

Its face are its modules, each usable alone, imported when they are first used: a client that reads its credential file
does not pay for what masters need.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

_MODULES = {
    "callout": "antiphon.identity.callout",
    "credential": "antiphon.identity.credential",
    "opaque": "antiphon.identity.opaque",
    "proof": "antiphon.identity.proof",
    "seal": "antiphon.identity.seal",
    "server_config": "antiphon.identity.server_config",
    "tokens": "antiphon.identity.tokens",
    "vault": "antiphon.identity.vault",
    "xkey": "antiphon.identity.xkey",
}


def __getattr__(name: str) -> ModuleType:
    home = _MODULES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(home)
