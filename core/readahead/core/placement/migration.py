"""Which running requests go to another decode worker. Pure: what is there in, moves out."""

from __future__ import annotations

from collections.abc import Sequence

from readahead.core.config import MigrationConfig
from readahead.core.placement.decoder import Decoder
from readahead.core.placement.triggers import LoadTrigger, Move, NeedTrigger, Rules, Trigger


class MigrationPolicy:
    """One trigger, and the rules that hold for each."""

    def __init__(self, trigger: Trigger) -> None:
        self._trigger = trigger

    @classmethod
    def of(cls, config: MigrationConfig) -> MigrationPolicy | None:
        """The policy that the settings name; None for "none"."""
        rules = Rules(config)
        match config.trigger:
            case "load" | "cover":
                return cls(LoadTrigger(rules, is_covered=config.trigger == "cover"))
            case "need":
                return cls(NeedTrigger(rules))
            case _:
                return None

    def choose(self, decoders: Sequence[Decoder], *, now: float) -> list[Move]:
        """The moves to begin now; each request at most once.

        Args:
            decoders: all decode workers, in an order that does not depend on history.
            now: seconds on the driver's clock.
        """
        return self._trigger.choose(decoders, now=now)
