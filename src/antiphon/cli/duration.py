"""Durations as people write them: `90s`, `12h`, `30d`."""

from __future__ import annotations

import re
from typing import Final

from antiphon.errors import InvalidSetting

UNITS: Final = {"ms": 1, "s": 1_000, "min": 60_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_FORM: Final = re.compile(r"([0-9]{1,9})\s*([a-z]+)")


def parse(text: str, option: str) -> int:
    """Return milliseconds; raise `InvalidSetting` with the option's name for what is no duration."""
    match = _FORM.fullmatch(text.strip().lower())
    if match is None or match[2] not in UNITS or not int(match[1]):
        raise InvalidSetting(f"{option} {text[:40]!r}: write a number and a unit, such as 90s, 30min, 12h, 1d or 4w")
    return int(match[1]) * UNITS[match[2]]
