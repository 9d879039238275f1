"""A declared action: the author's handler, the models of its params and result, and the contract that follows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from antiphon.acting.context import ActionContext
from antiphon.bus.codec import first_reason
from antiphon.errors import InvalidReply, InvalidSetting, Malformed, Oversize
from antiphon.messages.actions import ActionContract
from antiphon.messages.saga import JSON_BYTES_MAX

Model = type[BaseModel]
DEFS: Final = "#/$defs/"
DATA: Final = frozenset({"default", "examples", "enum", "const"})
"""Keywords whose values are data and no schemas."""


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a node.

    Attributes:
        contract: what the node tells of it.
        handler: the author's function.
        params: the model of what it takes, None where it takes nothing.
        result: the model of what it returns, None for any JSON.
        has_context: whether the handler wants to know more.
    """

    contract: ActionContract
    handler: Callable[..., Any]
    params: Model | None
    result: Model | None
    has_context: bool

    @property
    def can_be_cut_off(self) -> bool:
        """Whether a cancel ends its handler; a plain function runs in a thread, and can only look whether it should."""
        return inspect.iscoroutinefunction(self.handler)

    def arguments(self, params: Mapping[str, JsonValue], context: ActionContext) -> tuple[Any, ...]:
        """Return what the handler is called with; raises `Malformed` for params that its model does not take."""
        given: list[Any] = []
        if self.params is not None:
            try:
                # as JSON, for a date is text there and in Python it is not
                given.append(self.params.model_validate_json(to_json(params)))
            except ValidationError as error:
                raise Malformed(f"{self.contract.name}: params.{first_reason(error)}") from None
        if self.has_context:
            given.append(context)
        return tuple(given)

    def told(self, result: Any) -> JsonValue:
        """Return a result as it travels.

        Raises `InvalidReply` for one that is not what the contract says, `Oversize` for one that is too large.
        """
        try:
            if self.result is not None and not isinstance(result, self.result):
                result = self.result.model_validate(result)
            value = to_jsonable_python(result, by_alias=True, inf_nan_mode="strings")
        except ValidationError as error:
            raise InvalidReply(f"the result of {self.contract.name}: {first_reason(error)}") from None
        except (PydanticSerializationError, ValueError) as error:
            raise InvalidReply(f"the result of {self.contract.name} is no JSON: {type(error).__name__}") from None
        if (size := len(to_json(value))) > JSON_BYTES_MAX:
            raise Oversize(f"the result of {self.contract.name} has {size} bytes; the bound is {JSON_BYTES_MAX}")
        return cast("JsonValue", value)


def declare(
    name: str, handler: Callable[..., Any], *, params: Model | None, result: Model | None, **contract: Any
) -> Action:
    """Return the action that a handler is; raises `InvalidSetting` for one that cannot be one."""
    given = {
        "name": name,
        "params": None if params is None else schema_of(params, "validation"),
        "result": None if result is None else schema_of(result, "serialization"),
    }
    try:
        told = ActionContract.model_validate(given | contract)
    except ValidationError as error:
        raise InvalidSetting(f"action {name}: {first_reason(error)}") from None
    return Action(told, handler, params, result, _has_context(name, handler, takes_params=params is not None))


def schema_of(model: Model, mode: Any) -> dict[str, JsonValue]:
    """Return a model's JSON Schema as a contract has it: without titles, and cut where it refers back to itself.

    What is cut off is checked by the model all the same, on the node.
    """
    whole = cast("dict[str, JsonValue]", _untitled(model.model_json_schema(mode=mode)))
    found = whole.pop("$defs", {})
    defs = cast("dict[str, JsonValue]", found)
    if isinstance(reference := whole.get("$ref"), str):  # of a model that refers to itself
        whole = dict(cast("dict[str, JsonValue]", defs[reference.removeprefix(DEFS)]))
    done: dict[str, JsonValue] = {}
    whole = cast("dict[str, JsonValue]", _cut(whole, defs, done, ()))
    if done:
        whole["$defs"] = dict(done)
    return whole


def _cut(
    part: JsonValue, defs: Mapping[str, JsonValue], done: dict[str, JsonValue], open_: tuple[str, ...]
) -> JsonValue:
    if isinstance(part, list):
        return [_cut(one, defs, done, open_) for one in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if isinstance(reference, str):
        name = reference.removeprefix(DEFS)
        if name in open_:
            return {}
        if name not in done:
            done[name] = _cut(defs[name], defs, done, (*open_, name))
    return {key: value if key in DATA else _cut(value, defs, done, open_) for key, value in part.items()}


def _untitled(part: JsonValue) -> JsonValue:
    """Return a schema without the titles that pydantic makes of names; a field that is called so stays."""
    if isinstance(part, list):
        return [_untitled(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: value if key in DATA else _untitled(value)
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str))
    }


def _has_context(name: str, handler: Callable[..., Any], *, takes_params: bool) -> bool:
    """Whether a handler takes a context behind its params."""
    params = (None,) if takes_params else ()
    try:
        signature = inspect.signature(handler)
    except ValueError:  # a builtin that does not say what it takes
        return False
    for has_context in (True, False):
        try:
            signature.bind(*params, *((None,) if has_context else ()))
        except TypeError:
            continue
        return has_context
    wanted = "params and perhaps a context" if takes_params else "nothing, or a context"
    raise InvalidSetting(f"the handler of the action {name} is called with {wanted}")
