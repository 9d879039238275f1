"""A saga's history as rows: one a message and one for what is stored with it; what is none is dead, with its bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiphon.decide.record_batch import Taken, read
from antiphon.decide.record_tables import TABLES
from antiphon.decide.saga_rows import EVENTS
from antiphon.messages.base import Fact
from antiphon.messages.saga_history import OUTCOMES, SAGAS, StepVoided
from records import NOW_MS, store_in

ROOT = Path(__file__).parents[2]
CALLED: dict[type[Fact], str] = {**EVENTS, StepVoided: "outcome"}
KINDS = {kind.__name__: kind for kind in CALLED}
KEYS = {"saga": "order-7", "node": "shop", "ticket": "2f", "writer": "shop", "nonce": "n1"}
EXAMPLES = sorted(
    path for path in (ROOT / "tests/golden/messages").glob("*.json") if path.name.partition(".")[0] in KINDS
)


def history(path: Path) -> Taken:
    kind = KINDS[path.name.partition(".")[0]]
    template = kind.route.template
    subject = template.subject(**{key: KEYS[key] for key in template.keys})
    return Taken(subject, 5, path.read_bytes(), NOW_MS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_golden_message_of_a_history_is_one_row(path: Path) -> None:
    batch = read(SAGAS, [history(path)], "antiphon")
    assert batch.dead == 0, batch.rows
    row, *more = batch.rows["saga_events"]
    named = dict(zip(TABLES["saga_events"], row, strict=True))
    assert named["saga"] == "order-7"
    assert named["event"] == CALLED[KINDS[path.name.partition(".")[0]]]
    given = json.loads(path.read_bytes())
    for name in ("step", "action", "code", "attempts", "took_ms"):
        if name in given:
            assert named[name] == given[name], name
    second = {"commanded": given.get("first"), "outcome": given.get("told", {}).get("said")}
    assert [one[5] for one in more] == [event for event, said in second.items() if said]
    for one in more:
        named = dict(zip(TABLES["saga_events"], one, strict=True))
        said = second[named["event"]]
        assert (named["ticket"], named["node"]) == ("1f", "users")
        for name in ("step", "action", "code", "attempts", "took_ms"):
            assert named[name] == said.get(name, named[name]), name


def test_every_kind_has_an_example() -> None:
    assert {path.name.partition(".")[0] for path in EXAMPLES} == set(KINDS)


def test_what_is_no_history_is_dead_with_its_bytes(tmp_path: Path) -> None:
    strange = Taken("antiphon.v1.saga.order-7.q.what", 6, b"{}", NOW_MS)
    broken = Taken("antiphon.v1.saga.order-7.k.end", 7, b'{"state": 1}', NOW_MS)
    batch = read(OUTCOMES, [strange, broken], "antiphon")
    assert batch.dead == 2
    assert [row[-1] for row in batch.rows["dead_facts"]] == [b"{}", b'{"state": 1}']
    store = store_in(tmp_path)
    messages = [history(path) for path in EXAMPLES] + [strange]
    joint = sum(".first" in path.name or ".told" in path.name for path in EXAMPLES)
    assert store.write(SAGAS, 3, messages, NOW_MS) == (len(messages) + joint, 1)
    [(count,)] = store.execute("SELECT count(*) FROM saga_events")
    assert count == len(EXAMPLES) + joint
    store.close()
