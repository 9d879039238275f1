"""The oldest nats-server that is good enough, and the check of one that has said its version; nodes need no more."""

from __future__ import annotations

import re
from typing import Final

from antiphon.errors import ServerTooOld

VERSION_MIN: Final = (2, 14, 3)
"""Older servers have holes that permissions rest on (nats-facts.md)."""
_VERSION = re.compile(r"(?<![\w.])v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(-[0-9A-Za-z.-]+)?(?![\w.])")


def check_version(text: str) -> tuple[int, int, int]:
    """Return the version in `text` (`2.15.1`, `nats-server: v2.15.1`, `<nats server v2.15.1>`).

    Raises `ServerTooOld` for one below `VERSION_MIN`, for a pre-release of exactly that, and for an unreadable one.
    """
    least = ".".join(map(str, VERSION_MIN))
    match = _VERSION.search(text)
    if match is None:
        raise ServerTooOld(f"the nats-server says its version is {text.strip()[:80]!r}; {least} or newer is needed")
    version = (int(match[1]), int(match[2]), int(match[3]))
    if version < VERSION_MIN or (version == VERSION_MIN and match[4]):
        raise ServerTooOld(f"the nats-server is version {match[0].strip()}; {least} or newer is needed")
    return version
