"""What a nats-server's log says of somebody who did what he may not: read strictly, and told within a bound.

The server tells the violator alone, and writes a line; there is no event. A line is believed only as a whole: the
server quotes all that a client says of itself (Go's `%q`), so nobody can put a line of his own into it, and what stands
where the label of a user has to be was given by the callout. The form is that of nats-server 2.14 and 2.15
(`client.go`: `pubPermissionViolation`, `subPermissionViolation`, `replySubjectViolation`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from antiphon.decide.limit import MINUTE_MS, Limiter, Rate
from antiphon.decide.login import Labelled

LINE_BYTES_MAX: Final = 32_768
"""A subject and a name of 4 KB each, every byte written as `\\x00`; a longer line is not the server's."""
USERS_MAX: Final = 1_000
"""Users whose violations are counted one by one; those of more are not told."""
_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
_LINE: Final = re.compile(
    r"\[\d{1,10}\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}(?: [A-Z]{1,5})? \[ERR\] "
    r"([0-9a-fA-F.:\[\]]{3,60}) - [cw]id:\d{1,20} - "
    rf"(?:{_QUOTED} - )?"
    rf'"([^"/\\]{{1,200}})/user:([a-zA-Z0-9:_-]{{1,400}})" - '
    rf"(Publish|Subscription) Violation - (?:Subject|Reply) {_QUOTED}"
    rf"(?:, Queue: {_QUOTED})?(?:, SID \S{{1,40}})?"
)


@dataclass(frozen=True, slots=True)
class Violation:
    """Somebody published or subscribed what he may not."""

    user: Labelled
    what: Literal["publish", "subscribe"]
    subject: str
    """As the server quotes it: control characters are escaped."""
    address: str


def read(line: str, account: str) -> Violation | None:
    """Return what a line of the server's log says of a violation in an account, None for any other line."""
    if len(line) > LINE_BYTES_MAX:
        return None
    found = _LINE.fullmatch(line)
    if found is None or found[3] != account:
        return None
    user = Labelled.of(found[4])
    if user is None:
        return None
    return Violation(user, "publish" if found[5] == "Publish" else "subscribe", found[6], found[1])


class Violations:
    """Which violations are told: of each user so many a minute one by one, of the rest the number."""

    def __init__(self, rate: Rate | None = None) -> None:
        self._rate = rate or Rate(20, MINUTE_MS, 20)
        self._told: Limiter[Labelled] = Limiter(USERS_MAX)
        self._untold: dict[Labelled, int] = {}

    def is_told(self, violation: Violation, now_ms: int) -> bool:
        """Whether to tell it now; else it is counted."""
        if self._told.judge(violation.user, self._rate, now_ms).is_allowed:
            return True
        if violation.user in self._untold or len(self._untold) < USERS_MAX:
            self._untold[violation.user] = self._untold.get(violation.user, 0) + 1
        return False

    def counted(self) -> dict[Labelled, int]:
        """Return how many were not told since this was asked last."""
        counted, self._untold = self._untold, {}
        return counted
