"""What every message is: a frozen model that declares its subject, who may ask it and who answers it.

Schemas, permissions and the protocol's documentation are derived from these declarations, so a message is
one class in one file and nothing else has to be edited. Readers ignore unknown fields; every list, string and
number has a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from antiphon.subjects import TOKEN, Template

Name = Annotated[str, StringConstraints(pattern=f"^{TOKEN.pattern}$", max_length=63)]
"""A legal subject token. Pydantic's regex engine has no `$`-before-newline trap: `$` is the end of the text."""
Label = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[str, StringConstraints(max_length=2_000)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Scalar = str | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | bool | None


class Kind(StrEnum):
    """The kinds of identity; a name belongs to one kind only."""

    PUBLISHER = "publisher"
    NODE = "node"
    OPERATOR = "operator"
    ANALYST = "analyst"
    MASTER = "master"


ANYONE: tuple[Kind, ...] = tuple(Kind)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message travels and between whom.

    Attributes:
        template: the subject; its last key is `<caller>` for a request, `<writer>` for a fact, and a lane has neither.
        sent_by: the kinds of identity that may publish it.
        read_by: the kinds that subscribe to it.
        queue: the queue group that shares the work, or None when every subscriber gets each message.
        idempotent: whether asking twice does no harm, so that it may be retried or hedged.
        is_told: whether nobody waits for an answer; the reply subject then only proves who wrote the message.
        stream: the stream that keeps it, its name after `<prefix>-`. It is read from there and never subscribed to:
            a subscriber would also hear what the stream then refuses.
    """

    template: Template
    sent_by: tuple[Kind, ...]
    read_by: tuple[Kind, ...]
    queue: str | None = None
    idempotent: bool = True
    is_told: bool = False
    stream: str | None = None

    @property
    def is_lane(self) -> bool:
        """Whether this is written by masters only: a node's own lane, checked by the reply's inbox, or their log."""
        return "caller" not in self.template.keys and "writer" not in self.template.keys


class Message(BaseModel):
    """The root of all messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, defer_build=True)
    wire_version: ClassVar[str] = "1.0"
    size_max: ClassVar[int] = 64 * 1024
    """Bytes on the wire; larger ones are refused with `Oversize` before they are parsed."""

    @classmethod
    def wire_type(cls) -> str:
        """Return the `Antiphon-Type` of this message, `<Class>/<major>.<minor>`."""
        return f"{cls.__name__}/{cls.wire_version}"


R = TypeVar("R", bound=Message)


class Request(Message, Generic[R]):
    """A message that names its reply: `class SearchAsk(Request[SearchAnswer])`."""

    route: ClassVar[Route]

    @classmethod
    def reply_type(cls) -> type[Message]:
        """Return the declared reply's class."""
        for base in cls.__mro__:
            metadata = cast("dict[str, Any]", getattr(base, "__pydantic_generic_metadata__", {}))
            if metadata.get("origin") is Request and metadata.get("args"):
                return cast("type[Message]", metadata["args"][0])
        raise TypeError(f"{cls.__name__} does not name its reply: write Request[TheReply]")

    def carried_budget_ms(self) -> int | None:
        """Return the budget that travels in the body, or None where it travels in the header."""
        return None

    def carried_request(self) -> str | None:
        """Return the request's id that travels in the body, or None where it travels in the header."""
        return None


class Fact(Message):
    """Something that happened, in the past tense; the last subject token is its writer."""

    route: ClassVar[Route]


class Acknowledged(Message):
    """The reply of a request that has nothing to tell but that it was done."""
