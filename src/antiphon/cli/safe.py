"""Text from elsewhere, made harmless for a terminal.

A title comes from a node, and a node may be hostile: what it sends must not move the cursor, set the clipboard,
change the window's title, or turn the text round. What is taken out is shown, not hidden.
"""

from __future__ import annotations

import unicodedata

_JOINERS = frozenset("\u00ad\u200c\u200d")
"""Format characters that scripts and emoji need, and that only join or part letters."""


def line(text: str) -> str:
    """Return a text as one line: white space made single blanks, control characters shown as symbols."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(_shown(char) for char in text)
    return " ".join(text.split())


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if char.isspace():
        return " "
    if category == "Cc":
        point = ord(char)
        return chr(0x2400 + point) if point < ord(" ") else "\u2421" if char == "\x7f" else "\ufffd"
    if category in ("Cs", "Co", "Cn") or (category == "Cf" and char not in _JOINERS):
        return "\ufffd"
    return char


def json_text(text: str) -> str:
    r"""Return JSON with DEL and the C1 controls escaped, too, which some terminals obey; its meaning stays."""
    return text if text.isascii() and "\x7f" not in text else text.translate(_C1)


_C1 = {point: f"\\u{point:04x}" for point in (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F))}
