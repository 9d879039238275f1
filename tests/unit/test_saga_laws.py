"""The laws of sagas under every interleaving: crashes after each write, duplicates, delays, lost answers, zombies."""

from __future__ import annotations

import os

from hypothesis import settings

from saga_storm import Faults, storm

TestFaults = Faults.TestCase
TestFaults.settings = settings(max_examples=150, stateful_step_count=80)


SEEDS = int(os.environ.get("SAGA_STORMS", "400"))


def test_sagas_keep_their_laws_in_a_storm() -> None:
    worlds = [storm(seed) for seed in range(SEEDS)]
    ends = {world.saga.end.state for world in worlds if world.saga.end is not None}
    assert ends == {"completed", "compensated", "abandoned"}, "the storm did reach them"
    assert any(world.saga.parks for world in worlds)
    assert any(ticket.round > 1 for world in worlds for ticket in world.saga.commands)
