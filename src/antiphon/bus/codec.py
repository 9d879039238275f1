"""A message as bytes and headers, and an error as headers: what both ends of the bus have to agree on."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from antiphon.bus.protocol import NO_RESPONDERS, STATUS, Headers
from antiphon.errors import AntiphonError, Malformed, NoResponders, Oversize, from_wire
from antiphon.messages.base import Message

TYPE = "Antiphon-Type"
BUDGET = "Antiphon-Budget"
REQUEST = "Antiphon-Request"
RETRY_AFTER = "Antiphon-Retry-After"
TOLD = "told"
"""Last token of an order's reply subject; nothing is ever sent there."""
ERROR = "Nats-Service-Error"
ERROR_CODE = "Nats-Service-Error-Code"

M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """Return a message's JSON; what is not given is left out."""
    return message.__pydantic_serializer__.to_json(message, exclude_none=True)


def decode(kind: type[M], data: bytes) -> M:
    """Return a message from its JSON, or raise `Oversize` or `Malformed` with the first reason."""
    if len(data) > kind.size_max:
        raise Oversize(f"{kind.__name__} of {len(data)} bytes; the bound is {kind.size_max}")
    try:
        return cast("M", kind.__pydantic_validator__.validate_json(data or b"{}"))
    except ValidationError as error:
        raise Malformed(f"{kind.__name__}: {first_reason(error)}") from None


def first_reason(error: ValidationError) -> str:
    """Return the first thing that is wrong, short, without the input's value (it may be a secret or huge)."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    more = error.error_count() - 1
    text = f"{where}: {first['msg']}" if where else first["msg"]
    return text[:200] + (f" (and {more} more)" if more else "")


def as_object(given: object, what: str) -> dict[str, Any]:
    """Return a mapping or a model as it travels; raises `Malformed` for anything else, and for what is no JSON."""
    try:
        found = to_jsonable_python(given, by_alias=True)
    except ValueError as error:  # pydantic's own error is one
        raise Malformed(f"{what}: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise Malformed(f"{what}: a mapping or a model is wanted")
    return cast("dict[str, Any]", found)


def is_whole_number(text: str) -> bool:
    """Whether a header's value is a number that `int` takes: it refuses thousands of digits and a second sign."""
    return text.isascii() and text.isdecimal() and len(text) < 16  # noqa: PLR2004 - nothing we count is longer


def reply_error(headers: Headers | None) -> AntiphonError | None:
    """Return the error that a reply's headers carry, as its own class, or None."""
    if not headers:
        return None
    code = headers.get(ERROR_CODE)
    if code is not None:
        after = headers.get(RETRY_AFTER, "")
        return from_wire(code, headers.get(ERROR, "")[:1_000], int(after) if is_whole_number(after) else None)
    if headers.get(STATUS) == NO_RESPONDERS:
        return NoResponders("nobody listens there")
    return None


def size_of(headers: Headers) -> int:
    """Return how many bytes headers add to a message; the server ends the connection of one that is larger than all."""
    text = "".join([f"{key}: {value}\r\n" for key, value in headers.items()])
    return 12 + (len(text) if text.isascii() else len(text.encode()))
