"""The policy: operators set it, one entry of the identities' bucket keeps it, and every master shows the same.

Every master reads the entry before it answers the first search, and follows it. What cannot be read lets nobody in but
operators; what the server has lost is written back from memory. Only this actor writes the policy's part of the access
view (`Access.with_policy`).
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from pydantic import ValidationError

from antiphon.bus.assets import IDENTITY, identity_of
from antiphon.bus.bus import Bus, Call
from antiphon.bus.codec import encode
from antiphon.bus.protocol import Entry, KeyValue, Watch
from antiphon.decide.policy import CLOSED, Access
from antiphon.errors import NotConnected, Overloaded, Oversize
from antiphon.messages.base import Kind, Request
from antiphon.messages.policy import Policy, PolicyChanged, PolicyGet, PolicySet
from antiphon.runtime.actor import Actor, ActorBounds, answers
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.policy")

KEY: Final = "policy"
"""Of the entry in the identities' bucket."""
OPERATORS_ONLY: Final = frozenset((Kind.OPERATOR, Kind.MASTER))
ATTEMPTS_MAX: Final = 16
"""Races that a change may lose; each is lost to another operator's change, so this many are a quarrel."""
WRITE_BACK_MS: Final = 1_000
"""After which a write-back that found no server is tried again."""


class PolicyActor(Actor):
    """Who may search what and run what."""

    name = "policy"

    def __init__(self, bus: Bus, access: View[Access], facts: Facts, *, bounds: ActorBounds | None = None) -> None:
        super().__init__(bus, bounds=bounds)
        self.access = access
        self.facts = facts
        self._revision = 0
        self._bucket: KeyValue | None = None
        self._watch: Watch | None = None

    async def started(self) -> None:
        """Read the policy before the first message is taken; from here on this master takes orders of operators only.

        It is the masters' own check, one for all requests, and does not trust the server's permissions to be right.
        """
        self.bus.vet = self._vet
        self._bucket = await self.bus.transport.key_value(identity_of(self.bus.prefix))
        self._watch = await self._bucket.watch(self._changed)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does, and watch no more."""
        await super().stop(is_crashed=is_crashed)
        if self._watch is not None:
            await self._watch.stop()

    @answers(PolicySet)
    async def set(self, call: Call[PolicySet]) -> Policy:
        """Make the policy what an operator says."""
        self.access.current.check_operator(call.caller)
        wanted = call.message
        for _ in range(ATTEMPTS_MAX):
            # the bucket is asked, not the view: another master may have written it a moment ago
            found = await self._kv.get(KEY)
            before, revision = _read(found), 0 if found is None else found.revision
            if before is not None and (before.search, before.action) == (wanted.search, wanted.action):
                return before
            after = Policy(
                search=wanted.search,
                action=wanted.action,
                changed_at_ms=self.bus.clock.wall_ms(),
                changed_by=call.caller,
            )
            written = await self._kv.update(KEY, _encoded(after), revision)
            if written is not None:
                self._show(after, written)
                log.info("policy.changed", by=call.caller, search=len(after.search), action=len(after.action))
                self.facts.tell(PolicyChanged(at_ms=after.changed_at_ms, by=call.caller, policy=after))
                return after
        text = f"other operators have changed the policy {ATTEMPTS_MAX} times meanwhile"
        raise Overloaded(text, retry_after_ms=self.bounds.retry_after_ms)

    @answers(PolicyGet)
    async def get(self, call: Call[PolicyGet]) -> Policy:
        """Return the policy; it names everybody's nodes, so it is for operators alone."""
        self.access.current.check_operator(call.caller)
        return _read(await self._kv.get(KEY)) or self.access.current.policy

    def _vet(self, kind: type[Request[Any]], caller: str) -> None:
        if OPERATORS_ONLY.issuperset(kind.route.sent_by):
            self.access.current.check_operator(caller)

    @property
    def _kv(self) -> KeyValue:
        assert self._bucket is not None, "started() opens the bucket"
        return self._bucket

    def _changed(self, entry: Entry) -> None:
        """Take a change of the bucket; it is short and does not wait, so it needs no turn in the mailbox."""
        if entry.key != KEY:
            return
        if entry.is_lost:
            self._revision = 0
            self.tell(self._write_back)
            return
        policy = _read(entry)
        if policy is not None:
            self._show(policy, entry.revision)
            return
        log.error("policy.unreadable", kept=self._revision > 0)
        if not self._revision:
            self._show(CLOSED, entry.revision)

    def _show(self, policy: Policy, revision: int) -> None:
        if revision >= self._revision:
            self._revision = revision
            self.access.replace(self.access.current.with_policy(policy))

    async def _write_back(self) -> None:
        """Give the bucket back what its server has lost; another master may be first."""
        try:
            await self._kv.update(KEY, _encoded(self.access.current.policy), 0)
        except NotConnected:
            self.tell_after(WRITE_BACK_MS, self._write_back)


def _read(entry: Entry | None) -> Policy | None:
    """Return an entry's policy, the one that allows everything where there is none, or None for one that is no policy.

    Who finds it unreadable may set another: that mends it.
    """
    if entry is None or entry.value is None:
        return Policy()
    try:
        return Policy.model_validate_json(entry.value)
    except ValidationError:
        return None


def _encoded(policy: Policy) -> bytes:
    data = encode(policy)
    if len(data) > IDENTITY.value_bytes_max:
        raise Oversize(f"a policy of {len(data)} bytes; the bound is {IDENTITY.value_bytes_max}")
    return data
