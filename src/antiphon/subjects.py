"""The grammar of subjects and inboxes: how names become tokens, and nothing about who uses them.

A subject is `<prefix>.v1.<area>.<verb>[.<key>...]`; the keys of a template stand in angle brackets
(`search.ask.<caller>`). Every token is matched in full, because a node named `*` or `a.b` would otherwise
get the rights of others (nats-facts.md, hole 7). Inboxes are `_I.<name>.<session>.>`: whoever reads a reply subject
knows whose it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from antiphon.errors import InvalidName, UnknownVersion

PREFIX: Final = "antiphon"
VERSION: Final = "v1"
INBOX: Final = "_I"
MASTER: Final = "master"
TOKEN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
KEY: Final = re.compile(r"<([a-z]+)>")


def token(text: str) -> str:
    """Return `text` if it is a legal subject token, else raise `InvalidName`."""
    if TOKEN.fullmatch(text) is None:
        raise InvalidName(f"{text[:80]!r} is not a name: use 1 to 63 of a-z, 0-9, _ and -, a letter or digit first")
    return text


def is_master(name: str) -> bool:
    """Whether a name belongs to a master: `master` or `master-...`; no other kind is ever given such a name."""
    return name == MASTER or name.startswith(MASTER + "-")


def inbox(name: str, session: str) -> str:
    """Return the private inbox prefix of one session of an identity, without the trailing wildcard."""
    return f"{INBOX}.{token(name)}.{token(session)}"


def is_inbox_of(reply: str, name: str) -> bool:
    """Whether a reply subject lies below the inbox of `name`."""
    return reply.startswith(f"{INBOX}.{name}.")


def inbox_owner(reply: str) -> str | None:
    """Return whose inbox a reply subject lies in, or None if it lies in nobody's."""
    tokens = reply.split(".", 3)
    return tokens[1] if len(tokens) == 4 and tokens[0] == INBOX else None  # noqa: PLR2004 - _I.<name>.<session>.<rest>


class Template:
    """A subject with named keys, e.g. `node.<node>.<instance>.search`.

    >>> Template("search.ask.<caller>").subject(caller="web")
    'antiphon.v1.search.ask.web'
    >>> Template("search.ask.<caller>").parse("antiphon.v1.search.ask.web")
    {'caller': 'web'}
    >>> Template("search.ask.<caller>").pattern()
    'antiphon.v1.search.ask.*'
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.keys: tuple[str, ...] = tuple(KEY.findall(text))
        self._shape = re.compile(KEY.sub(r"(?P<\1>[^.]+)", text.replace(".", r"\.")))
        self._format = KEY.sub("%s", text)
        assert all(KEY.fullmatch(t) or TOKEN.fullmatch(t) for t in text.split(".")), text

    def subject(self, *, prefix: str = PREFIX, **keys: str) -> str:
        """Return the subject with every key filled in; raise `InvalidName` for a key that is no token."""
        return f"{prefix}.{VERSION}.{self._format % tuple([token(keys[key]) for key in self.keys])}"

    def pattern(self, *, prefix: str = PREFIX, **keys: str) -> str:
        """Return the subscription subject: given keys are fixed, the others are `*`."""
        text = KEY.sub(lambda m: token(keys[m[1]]) if m[1] in keys else "*", self.text)
        return f"{prefix}.{VERSION}.{text}"

    def parse(self, subject: str, *, prefix: str = PREFIX) -> dict[str, str]:
        """Return the keys of a concrete subject.

        Raises `UnknownVersion` for another major version and `InvalidName` for a subject that does not match.
        """
        return dict(_parsed(self._shape, self.text, prefix, subject))

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


@lru_cache(maxsize=4096)
def _parsed(shape: re.Pattern[str], text: str, prefix: str, subject: str) -> tuple[tuple[str, str], ...]:
    head = f"{prefix}.{VERSION}."
    if not subject.startswith(head):
        raise UnknownVersion(f"{subject[:120]!r} is not a subject of {head}")
    match = shape.fullmatch(subject[len(head) :])
    if match is None:
        raise InvalidName(f"{subject[:120]!r} does not match {text}")
    return tuple((key, token(value)) for key, value in match.groupdict().items())
