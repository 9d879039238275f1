"""What is stored of a query's text: all of it, a keyed hash, or nothing.

The hash is keyed with a secret of the record's folder, so that equal queries stay equal and nobody can try out a list
of words without it (BLAKE2b, RFC 7693).
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Final, Literal

from antiphon.bus.home import write_private
from antiphon.decide.record_rows import Hide, as_is
from antiphon.stats.files import KEY

Keep = Literal["plain", "hashed", "none"]
DIGEST_BYTES: Final = 16


def hidden(keep: Keep, folder: Path) -> Hide:
    """Return what makes the stored text of a query; a hash's key is made at the first use."""
    if keep == "plain":
        return as_is
    if keep == "none":
        return _nothing
    path = folder / KEY
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    key = bytes.fromhex(path.read_text(encoding="ascii").strip())

    def digest(query: str) -> str:
        return hashlib.blake2b(query.encode("utf-8", "replace"), key=key, digest_size=DIGEST_BYTES).hexdigest()

    return digest


def _nothing(_query: str) -> str | None:
    return None
