"""schemas/ says what the classes say, and messages written by older versions stay readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from antiphon.messages import catalogue, routed
from antiphon.messages.schemas import DIALECT, documents, stale, write

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "schemas"
GOLDEN = sorted((ROOT / "tests/golden/messages").glob("*.json"))
"""Named `<Message>.json` or `<Message>.<case>.json`. Add examples; never change one: it has been written somewhere."""


def test_the_folder_is_what_the_classes_say() -> None:
    wrong = stale(FOLDER)
    assert not wrong, f"run `python -m antiphon.messages.schemas schemas` for {wrong}"


def test_write_adds_mends_and_removes(tmp_path: Path) -> None:
    names = sorted(f"{name}.json" for name in catalogue())
    assert write(tmp_path / "new") == names
    (tmp_path / "new" / "Gone.json").write_text("{}")
    (tmp_path / "new" / names[0]).write_text("{}")
    (tmp_path / "new" / names[1]).unlink()
    assert write(tmp_path / "new") == sorted([names[0], names[1], "Gone.json"])
    assert stale(tmp_path / "new") == []


@pytest.mark.parametrize("name", documents())
def test_each_is_a_valid_schema_that_says_its_travel(name: str) -> None:
    schema = documents()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    assert schema["title"] == name
    assert schema["description"]
    assert schema["x-size-max"] > 0
    if name not in routed():
        assert "x-subject" not in schema
        return
    assert schema["x-subject"].startswith("antiphon.v1.")
    assert schema["x-sent-by"]
    assert schema["x-read-by"]
    if "x-reply" in schema:
        assert schema["x-reply"] in documents()


@pytest.mark.parametrize("name", documents())
def test_no_schema_forbids_unknown_fields(name: str) -> None:
    def forbidding(node: Any) -> bool:
        if isinstance(node, dict):
            return node.get("additionalProperties") is False or any(forbidding(value) for value in node.values())
        return isinstance(node, list) and any(forbidding(value) for value in node)

    assert not forbidding(documents()[name]), "readers ignore unknown fields"


def test_every_message_has_an_example() -> None:
    examples = {path.name.partition(".")[0] for path in GOLDEN}
    assert examples == set(catalogue()), "tests/golden/messages has one file at least for each message"
    assert any("unknown-fields" in path.name for path in GOLDEN)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_messages_stay_readable(path: Path) -> None:
    name = path.name.partition(".")[0]
    message, validator = catalogue()[name], Draft202012Validator(documents()[name])
    given = json.loads(path.read_bytes())
    validator.validate(given)
    read = message.model_validate_json(path.read_bytes())
    written = json.loads(read.model_dump_json())
    validator.validate(written)
    assert message.model_validate(written) == read
    if "unknown-fields" in path.name:
        assert contains(written, given) is False, "an unknown field is ignored, not passed on"
    else:
        assert contains(written, given), "nothing that was sent is lost"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SearchAsk", {}),
        ("SearchAsk", {"query": ""}),
        ("SearchAsk", {"query": "x", "limit": 0}),
        ("SearchAsk", {"query": "x", "nodes": ["*"]}),
        ("SearchAsk", {"query": "x", "min_coverage": 1.5}),
        ("NodeFound", {"hits": [{"id": ""}]}),
        ("NodeFound", {"hits": [{"id": "1", "doc": {}, "tf": [-1]}]}),
        ("NodeJoin", {"instance": "a.b"}),
        ("NodeSearch", {"request": "r", "query": "x"}),
    ],
)
def test_the_schema_and_the_class_refuse_the_same(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(documents()[name]).validate(value)
    with pytest.raises(ValueError, match=r"validation error"):
        catalogue()[name].model_validate(value)


def contains(whole: Any, part: Any) -> bool:
    """Whether everything in `part` stands in `whole` too."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(contains(a, b) for a, b in zip(whole, part, strict=True))
    return bool(whole == part)
