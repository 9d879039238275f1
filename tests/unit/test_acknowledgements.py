"""The server's own acknowledgements are no message of ours: they go wherever somebody aims them who may store one."""

from __future__ import annotations

import pytest

from antiphon.bus.codec import decode
from antiphon.errors import Malformed
from antiphon.messages import routed
from antiphon.messages.base import Fact, Kind

ACKS = (
    b'{"stream":"antiphon-reports","seq":7}',
    b'{"stream":"antiphon-reports","domain":"hub","seq":7,"duplicate":true}',
    b'{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum"},"stream":"x","seq":0}',
    b'{"stream":"antiphon-reports","seq":7,"val":"3","batch":"b","count":2}',
)
READING = frozenset({"ActionList", "BreakerList", "IdentityList", "KeysAsk", "MonitorAsk", "NodeList", "PingAsk"}) | {
    "PolicyGet",
    "SagaList",
    "WhoAmI",
}
"""Requests that change nothing and need say nothing; without a reply they are dropped."""


@pytest.mark.parametrize("data", ACKS)
def test_no_fact_or_order_that_masters_take_can_be_an_acknowledgement(data: bytes) -> None:
    for name, message in routed().items():
        is_heard = Kind.MASTER in message.route.read_by and message.route.stream is None
        if is_heard and name not in READING:
            with pytest.raises(Malformed):
                decode(message, data)
    assert not any(issubclass(routed()[name], Fact) for name in READING)
