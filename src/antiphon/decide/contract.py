"""Contracts of actions: whether one may be published, and whether params keep to it.

A contract comes from a node, and masters check params by it, so it is hostile input: it must not fetch anything, run
for ever, or say something that the master could not check. Therefore it may refer to its own `$defs` only and not back
to itself; written out in full it has at most `SIZE_MAX` parts, which bounds the work for each part of the params;
patterns are matched by an engine that takes linear time. Values never stand in an error: they may be secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import orjson
from pydantic import JsonValue

from antiphon.errors import Malformed
from antiphon.messages.actions import ActionContract, Aggregation, Effect

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

DEFS: Final = "#/$defs/"
SIZE_MAX: Final = 2_000
"""Parts of a schema with every reference written out."""
VALIDATORS_MAX: Final = 1_024
"""Compiled schemas that are remembered; one more is compiled again, in a tenth of a millisecond."""
REFUSED: Final = frozenset(
    {"$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor", "$vocabulary"}
)
"""Keywords that would let a schema name things elsewhere."""
TEXT_MAX: Final = 300
NUMBERS: Final = frozenset({"integer", "number"})


def check(contract: ActionContract, *, compiles: bool = True) -> None:
    """Raise `Malformed` for a contract that a master would not take; a node need not compile it, masters do."""
    for side, schema in (("params", contract.params), ("result", contract.result)):
        if schema is None:
            continue
        where = f"action {contract.name}: {side}"
        try:
            size(schema)
            if compiles:
                _validator(orjson.dumps(schema))
        except Malformed as error:
            raise Malformed(f"{where}: {error.text}") from None
    if contract.params is not None and contract.params.get("type") != "object":
        raise Malformed(f"action {contract.name}: params are an object")
    _check_aggregates(contract)
    if contract.compensates == contract.name:
        raise Malformed(f"action {contract.name} cannot undo itself")
    if contract.effect is Effect.READ and (contract.compensates is not None or contract.has_dry_run):
        raise Malformed(f"action {contract.name} only reads: there is nothing to undo and nothing to try")


def size(schema: Mapping[str, JsonValue]) -> int:
    """Return how many parts a schema has with every reference written out.

    Raises `Malformed` for more than `SIZE_MAX`, for a reference that leads elsewhere, nowhere or back to itself.
    """
    defs = schema.get("$defs", {})
    if not isinstance(defs, dict):
        raise Malformed("$defs is an object")
    known: dict[str, int] = {}
    total = _size({key: value for key, value in schema.items() if key != "$defs"}, defs, known, ())
    for name in defs:  # also those that nothing refers to: the compiler looks at them
        _referred(DEFS + name, defs, known, ())
    return total


def violation(contract: ActionContract, params: Mapping[str, JsonValue]) -> str | None:
    """Return what is wrong with some params, with the field that it is wrong with, or None."""
    if contract.params is None:
        return f"{contract.name} takes no params" if params else None
    return _violation("params", orjson.dumps(contract.params), params)


def result_violation(contract: ActionContract, result: JsonValue) -> str | None:
    """Return what is wrong with a result, with the field that it is wrong with, or None."""
    return None if contract.result is None else _violation("result", orjson.dumps(contract.result), result)


def _violation(what: str, schema: bytes, value: object) -> str | None:
    from jsonschema_rs import ValidationError  # noqa: PLC0415 - 40 ms and 15 MB, for masters that run actions

    try:
        _validator(schema).validate(value)
    except ValidationError as error:
        field = ".".join([what, *map(str, error.instance_path)])
        return f"{field}: {error.message}"[:TEXT_MAX]
    except (ValueError, OverflowError):  # a lone surrogate, which is no text in UTF-8
        return f"{what}: no JSON"
    return None


@lru_cache(VALIDATORS_MAX)
def _validator(schema: bytes) -> Draft202012Validator:
    import jsonschema_rs  # noqa: PLC0415 - as above

    try:
        return jsonschema_rs.Draft202012Validator(
            orjson.loads(schema),
            mask="the value",
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise Malformed(f"no JSON Schema: {str(error).splitlines()[0][:TEXT_MAX]}") from None


def _size(part: JsonValue, defs: Mapping[str, JsonValue], known: dict[str, int], open_: tuple[str, ...]) -> int:
    total = 1
    if isinstance(part, list):
        for one in part:
            total += _size(one, defs, known, open_)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in REFUSED:
                raise Malformed(f"{key} is not taken: a contract refers to its own $defs only")
            if key == "$ref" and isinstance(value, str):
                total += _referred(value, defs, known, open_)
            else:
                total += _size(value, defs, known, open_)
    if total > SIZE_MAX:
        raise Malformed(f"more than {SIZE_MAX} parts with every reference written out")
    return total


def _referred(reference: str, defs: Mapping[str, JsonValue], known: dict[str, int], open_: tuple[str, ...]) -> int:
    name = reference.removeprefix(DEFS).replace("~1", "/").replace("~0", "~")
    if not reference.startswith(DEFS) or name not in defs:
        raise Malformed(f"{reference[:80]!r} refers to nothing in $defs")
    if name in open_:
        raise Malformed(f"{reference[:80]!r} refers back to itself")
    if name not in known:
        known[name] = _size(defs[name], defs, known, (*open_, name))
    return known[name]


def _check_aggregates(contract: ActionContract) -> None:
    fields = (contract.result or {}).get("properties")
    for name, kind in contract.aggregates.items():
        if contract.result is None:
            continue
        if not isinstance(fields, dict) or name not in fields:
            raise Malformed(f"action {contract.name}: its result has no field {name!r} to make a {kind} of")
        declared = fields[name]
        sort = declared.get("type") if isinstance(declared, dict) else None
        if kind is not Aggregation.HISTOGRAM and isinstance(sort, str) and sort not in NUMBERS:
            raise Malformed(f"action {contract.name}: {name!r} is a {sort}, of which there is no {kind}")
