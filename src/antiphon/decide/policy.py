"""Who may search what and run what: the verdict on an identity, and the fabric as that identity sees it.

Pure. A node that somebody may not search is not there for him: `visible` takes it out of the registry's view, and
whatever reads that view (the expected set, the errors, the listings) cannot tell it from one that never was. Rules only
allow, so their order means nothing and one rule more never takes anything away, except for the first of its sort:
without any, everybody may.

Whoever asks for somebody else with an on-behalf-of token is treated as that somebody, the *principal*. Operators and
masters are exempt: they could change the policy anyway.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, TypeVar

from antiphon.decide.identities import IdentityRecord, Standing
from antiphon.decide.login import DelegatedClaims
from antiphon.decide.registry import RegistryView
from antiphon.errors import NotAllowed
from antiphon.messages.base import Kind
from antiphon.messages.policy import ActionRule, Policy, SearchRule
from antiphon.subjects import MASTER, is_master

K = TypeVar("K")
V = TypeVar("V")

CALLERS_MAX: Final = 10_000
"""Callers whose view is remembered; one more is worked out again."""
NODES_MAX: Final = 1_000_000
"""Nodes in all remembered views together; about 100 MB."""
GLOBS_MAX: Final = 1_024
"""Lists of globs remembered as regular expressions: those of both sorts of rules, twice."""
EXEMPT: Final = frozenset({Kind.OPERATOR, Kind.MASTER})

CLOSED: Final = Policy(
    search=(SearchRule(who=(MASTER,), nodes=("*",)),),
    action=(ActionRule(who=(MASTER,), actions=("*",)),),
)
"""Allows nobody anything, for masters are exempt anyway: what holds while the real policy cannot be read."""


class Principal(NamedTuple):
    """Who counts in a request: whose rate, whose policy, whose name in facts."""

    name: str
    kind: Kind | None = None
    """None where no identity of that name is known: rules for its name hold, those for kinds and groups do not."""
    groups: tuple[str, ...] = ()
    delegate: str | None = None
    """Who asks for it, where it is not itself."""


class Verify(Protocol):
    """Reads on-behalf-of tokens; a master and a node that know the signing keys have one (`identity`)."""

    def __call__(self, token: str, caller: str, /) -> DelegatedClaims:
        """Return what a token says that `caller` presents; raises `NotAllowed`."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """The policy and whom it is about, at one moment.

    Two actors fill it, each its own part, on one event loop: `view.replace(view.current.with_policy(...))` has nothing
    to wait for between reading and replacing, so neither can undo the other.
    """

    policy: Policy = field(default_factory=Policy)
    identities: Mapping[str, IdentityRecord] = field(default_factory=dict[str, IdentityRecord])
    is_open: bool = True
    """Whether anybody is taken for whom he says he is; then a policy keeps order and keeps nobody out."""

    def with_policy(self, policy: Policy) -> Access:
        """Return the same with another policy."""
        return replace(self, policy=policy)

    def with_identities(self, identities: Mapping[str, IdentityRecord], *, is_open: bool = False) -> Access:
        """Return the same with other identities."""
        return replace(self, identities=identities, is_open=is_open)

    def principal(self, name: str) -> Principal:
        """Return who a caller is; raises `NotAllowed` for one that is suspended and still connected."""
        record = self.identities.get(name)
        if record is None:
            return Principal(name, Kind.MASTER if is_master(name) else None)
        if record.status is not Standing.ACTIVE:
            raise NotAllowed(f"{name} is suspended")
        return Principal(name, record.kind, record.groups)

    def represented(self, claims: DelegatedClaims) -> Principal:
        """Return for whom a verified token asks; what is known of it now wins over what the token says."""
        if claims.principal in self.identities:
            return self.principal(claims.principal)._replace(delegate=claims.delegate)
        return Principal(claims.principal, claims.kind, claims.groups, claims.delegate)

    def check_operator(self, name: str) -> None:
        """Raise `NotAllowed` for whoever is known and no operator; the server checks it first, where it checks."""
        if not self.is_open and self.principal(name).kind not in EXEMPT:
            raise NotAllowed(f"{name} is no operator")

    def is_operator(self, name: str) -> bool:
        """Whether somebody passes for an operator."""
        try:
            self.check_operator(name)
        except NotAllowed:
            return False
        return True


def is_limited(access: Access, who: Principal) -> bool:
    """Whether rules say what somebody may search; also where they happen to allow all that there is."""
    return bool(access.policy.search) and who.kind not in EXEMPT


def may_search(access: Access, who: Principal, node: str) -> bool:
    """Whether somebody may search a node."""
    return not is_limited(access, who) or any(
        is_for(rule.who, who) and _globs(rule.nodes).has(node) for rule in access.policy.search
    )


def may_run(access: Access, who: Principal, action: str, node: str) -> bool:
    """Whether somebody may run an action on a node."""
    rules = access.policy.action
    return (
        not rules
        or who.kind in EXEMPT
        or any(
            is_for(rule.who, who) and _globs(rule.actions).has(action) and _globs(rule.nodes).has(node)
            for rule in rules
        )
    )


def is_for(whos: tuple[str, ...], who: Principal) -> bool:
    """Whether one of a rule's `who` means somebody."""
    names: list[str] = []
    for one in whos:
        sort, _, value = one.rpartition(":")
        if not sort:
            names.append(one)
        elif value in who.groups if sort == "group" else value == who.kind:
            return True
    return _globs(tuple(names)).has(who.name)


def visible(access: Access, who: Principal, registry: RegistryView) -> RegistryView:
    """Return the registry as somebody sees it: without the nodes that he may not search."""
    return Sight().nodes(access, who, registry)


class Globs:
    """Names and globs of names, of which one has to match in full."""

    __slots__ = ("_exact", "_pattern")

    def __init__(self, globs: Iterable[str]) -> None:
        every = frozenset(globs)
        wild = {glob for glob in every if "*" in glob or "?" in glob}
        self._exact = every - wild
        self._pattern = re.compile("|".join(map(translate, sorted(wild)))) if wild else None

    def has(self, name: str) -> bool:
        """Whether a name is meant."""
        return name in self._exact or (self._pattern is not None and self._pattern.match(name) is not None)


@lru_cache(GLOBS_MAX)
def _globs(globs: tuple[str, ...]) -> Globs:
    return Globs(globs)


class _Scope:
    """What one selection of rules allows, and what is seen of the registry through it."""

    __slots__ = ("globs", "shown")

    def __init__(self, globs: Globs) -> None:
        self.globs = globs
        self.shown: RegistryView | None = None

    def look(self, registry: RegistryView) -> RegistryView:
        """Return what is to be seen; the registry itself where that is all of it."""
        nodes = {name: node for name, node in registry.nodes.items() if self.globs.has(name)}
        if len(nodes) == len(registry.nodes):
            return registry
        return RegistryView(nodes, tuple(node for node in registry.searchable if node.node in nodes))


class Sight:
    """Who each caller is and what he sees, remembered while the views that it follows from are the same objects.

    One object of one reader, changed in place, for it is asked in every search: a known caller costs one look into a
    dictionary for each of the two. Callers whom the same rules allow share one view. What is remembered is bounded;
    the oldest is forgotten first and worked out again.
    """

    __slots__ = (
        "_access",
        "_callers",
        "_looked",
        "_registry",
        "_scopes",
        "_scopes_of",
        "callers_max",
        "held",
        "nodes_max",
    )

    def __init__(self, callers_max: int = CALLERS_MAX, nodes_max: int = NODES_MAX) -> None:
        self.callers_max = callers_max
        self.nodes_max = nodes_max
        self.held = 0
        """Nodes in all remembered views together."""
        self._access: Access | None = None
        self._registry: RegistryView | None = None
        self._callers: dict[str, Principal] = {}
        self._scopes_of: dict[Principal, _Scope] = {}
        self._scopes: dict[tuple[int, ...], _Scope] = {}
        self._looked: deque[_Scope] = deque()

    def caller(self, access: Access, name: str) -> Principal:
        """Return who a caller is, as `Access.principal`."""
        if access is not self._access:
            self._turn(access)
        known = self._callers.get(name)
        if known is None:
            known = access.principal(name)
            _keep(self._callers, name, known, self.callers_max)
        return known

    def nodes(self, access: Access, who: Principal, registry: RegistryView) -> RegistryView:
        """Return the registry as somebody sees it, as `visible`."""
        if not is_limited(access, who):
            return registry
        if access is not self._access:
            self._turn(access)
        if registry is not self._registry:
            self._forget_shown()
            self._registry = registry
        scope = self._scopes_of.get(who) or self._scope(access.policy, who)
        return scope.shown or self._look(scope, registry)

    def _scope(self, policy: Policy, who: Principal) -> _Scope:
        rules = tuple(at for at, rule in enumerate(policy.search) if is_for(rule.who, who))
        scope = self._scopes.get(rules)
        if scope is None:
            scope = _Scope(Globs(glob for at in rules for glob in policy.search[at].nodes))
            _keep(self._scopes, rules, scope, self.callers_max)
        _keep(self._scopes_of, who, scope, self.callers_max)
        return scope

    def _look(self, scope: _Scope, registry: RegistryView) -> RegistryView:
        scope.shown = shown = scope.look(registry)
        self._looked.append(scope)
        self.held += _size(shown)
        while self.held > self.nodes_max:
            self._forget_oldest()
        return shown

    def _turn(self, access: Access) -> None:
        """Begin anew: another policy, or other identities."""
        self._forget_shown()
        self._callers, self._scopes_of, self._scopes = {}, {}, {}
        self._access = access

    def _forget_shown(self) -> None:
        while self._looked:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        scope = self._looked.popleft()
        assert scope.shown is not None, "it stands in line because it has looked"
        self.held -= _size(scope.shown)
        scope.shown = None


def _size(view: RegistryView) -> int:
    return len(view.nodes) + 1


def _keep(kept: dict[K, V], key: K, value: V, most: int) -> None:
    """Remember one more, and forget the oldest where that is too many."""
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value
