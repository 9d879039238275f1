"""Headers as they stand in a message: the plain ones, which are nearly all; the others are left to nats-py.

nats-py looks at each line, each character of a name and each value by itself: three headers cost as much as a message.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from antiphon.bus.protocol import Headers

LINE: Final = b"NATS/1.0\r\n"
END: Final = b"\r\n\r\n"
BLANKS: Final = " \t\n\r\x0b\x0c"
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def headers_of(block: bytes) -> Headers | None:
    """Return the headers of a block; None for one with a status, or with anything that is not plain ASCII."""
    if not (block.startswith(LINE) and block.endswith(END) and block.isascii()):
        return None
    found: dict[str, str] = {}
    for line in block[len(LINE) : -len(END)].decode("ascii").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not _is_name(name):
            return None
        found[name] = value.strip(BLANKS)
    return found


def block_of(headers: Headers) -> bytes | None:
    """Return headers as a block; None where a name or a value is not what it should be."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not (lines.count("\r") == lines.count("\n") == len(headers) and all(map(_is_name, headers))):
        return None
    return b"%b%b\r\n" % (LINE, lines.encode())


@lru_cache(256)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None
