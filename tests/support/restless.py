"""Moves for the sake of moving: a trigger that sends readers anywhere at any time."""

from __future__ import annotations

import random
from collections.abc import Sequence

from readahead.core.config import CoreConfig, MigrationConfig, PlacementConfig
from readahead.core.placement.decoder import Decoder
from readahead.core.placement.migration import MigrationPolicy
from readahead.core.placement.triggers import Move, move
from readahead.core.router_state import RouterState

LOOK_S = 0.01
RESTLESS = CoreConfig(
    placement=PlacementConfig(remote_prefill_tokens_min=32),
    # Any trigger but "none" has the core look; `set_restless` puts its own in.
    migration=MigrationConfig(trigger="load", interval_s=LOOK_S, cooldown_s=0.0),
)


class Restless:
    """Moves each reader who can be moved with the same chance at each look."""

    def __init__(self, draw: random.Random, *, chance: float) -> None:
        self._draw, self._chance = draw, chance

    def choose(self, decoders: Sequence[Decoder], *, now: float) -> list[Move]:
        del now
        moves = []
        here = [(source, request) for source in decoders for request in source.readers]
        for source, request in here:
            if request.is_movable and self._draw.random() < self._chance:
                targets = [
                    each
                    for each in decoders
                    if each is not source and each.can_take(request, kv_share_max=1.0)
                ]
                if targets:
                    target = self._draw.choice(targets)
                    moves.append(move(request, source, target, "for the sake of it"))
        return moves


def set_restless(state: RouterState, draw: random.Random, *, chance: float) -> None:
    """Has a core with the settings RESTLESS move people about."""
    state._migrations._policy = MigrationPolicy(Restless(draw, chance=chance))
