"""What is made of all results is what one would make of them at once, whatever nodes return."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.aggregate import VALUES_MAX, Aggregates
from antiphon.messages.actions import BUCKETS_MAX, Aggregation, JobTotal

numbers = st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def totals(kind: str, results: list[Any]) -> JobTotal:
    aggregates = Aggregates({"n": Aggregation(kind)})
    for one in results:
        aggregates.add(one)
    [found] = aggregates.totals()
    return found


@given(st.lists(numbers, min_size=1))
def test_sums_and_means_are_those_of_all(values: list[float]) -> None:
    results = [{"n": value} for value in values]
    assert totals("sum", results).value == pytest.approx(sum(values), abs=1e-3)
    assert totals("mean", results).value == pytest.approx(sum(values) / len(values), abs=1e-3)
    assert totals("sum", results).count == len(values)


@given(st.lists(st.sampled_from(["a", "b", 1, 1.0, True, None]), max_size=40))
def test_a_histogram_counts_each_value_and_tells_1_from_true(values: list[Any]) -> None:
    found = totals("histogram", [{"n": value} for value in values])
    counted = Counter((type(value), value) for value in values)
    assert {(type(one.value), one.value): one.count for one in found.buckets} == dict(counted)
    assert [one.count for one in found.buckets] == sorted((one.count for one in found.buckets), reverse=True)
    assert found.count == len(values)


@given(st.lists(anything), st.sampled_from(list(Aggregation)))
def test_whatever_nodes_return_there_is_a_total_that_can_be_sent(results: list[Any], kind: Aggregation) -> None:
    for wrapped in (results, [{"n": one} for one in results]):
        found = totals(kind, wrapped)
        assert JobTotal.model_validate_json(found.model_dump_json()) == found
        assert found.count <= len(results)


def test_what_is_missing_or_of_another_sort_does_not_count() -> None:
    found = totals("sum", [{"n": 1}, {}, {"n": "2"}, {"n": True}, [3], None, {"n": 2}])
    assert (found.value, found.count) == (3, 2)
    assert totals("mean", [{}]).value is None


def test_a_histogram_has_bounds() -> None:
    found = totals("histogram", [{"n": f"{at:04}" * 100} for at in range(2 * VALUES_MAX)])
    assert len(found.buckets) == BUCKETS_MAX
    assert sum(one.count for one in found.buckets) + found.others == found.count == 2 * VALUES_MAX
    assert all(len(str(one.value)) <= 200 for one in found.buckets)


def test_values_of_a_list_are_counted_one_by_one() -> None:
    found = totals("histogram", [{"n": ["a", "b"]}, {"n": ["a"]}])
    assert {one.value: one.count for one in found.buckets} == {"a": 2, "b": 1}
