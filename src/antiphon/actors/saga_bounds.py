"""The limits of one master's sagas; `settings.py` names those that operators may change."""

from __future__ import annotations

from dataclasses import dataclass, field

from antiphon.actors.saga_offers import OfferBounds
from antiphon.bus.assets import SAGA_BYTES_MAX


@dataclass(frozen=True, slots=True)
class SagaBounds:
    """How long what may take, in milliseconds, and how many."""

    lease_ms: int = 10_000
    """A saga that its driver has not moved for so long is driven by another master."""
    history_ms: int = 3_600_000
    """So long after its end a saga's history is there; then only its end is kept."""
    keep_ms: int = 30 * 86_400_000
    """So long its end is kept, and its id stands for it."""
    shards: int = 1
    """Sets of streams that sagas are spread over; the same for all masters, and for good."""
    bytes_max: int = SAGA_BYTES_MAX
    """Of all histories, and of all outcomes; where there is no room no saga begins."""
    sweep_ms: int = 60_000
    """How often it is looked whether every open saga has a timer."""
    look_ms: int = 10_000
    """How often it is asked what time the broker has, and how much room."""
    reserve_permille: int = 100
    """Of histories and outcomes, kept for the sagas that run: where less is left no saga begins."""
    cached_max: int = 2_000
    """Sagas remembered, which saves reading them again at each event; of three steps each takes some 30 KB."""
    cached_bytes_max: int = 64 * 1024 * 1024
    """Of what is in them, as JSON."""
    armed_max: int = 10_000
    """Sagas of which it is remembered when their timer fires."""
    parked_max: int = 1_000
    """Parked sagas that one master tells of."""
    waits_max: int = 768
    """Requests that are kept waiting for an end; what is more is answered at once, and may ask again."""
    caller_waits_max: int = 256
    """The same of one caller."""
    lists_max: int = 16
    """Listings at once; each may read every saga that there is. What is more is refused as overloaded."""
    caller_lists_max: int = 4
    """The same of one caller."""
    offers: OfferBounds = field(default_factory=OfferBounds)
