"""Workers cannot move a running request yet: the router says so at its start, and stays safe."""

from __future__ import annotations

import pytest

from readahead.core.config import CoreConfig, MigrationConfig
from readahead.core.errors import Reason
from readahead.core.messages import (
    AbortMigration,
    Command,
    Event,
    MigrateLeg,
    MigrationFailed,
    TimerFired,
)
from readahead.core.request import RequestId, WorkerId
from readahead.core.router_state import RouterState
from readahead.router.config import RouterConfig
from readahead.router.driver import Driver

MOVE = MigrateLeg(
    request_id=RequestId("r1"),
    attempt=1,
    move=3,
    source=WorkerId("d1"),
    target=WorkerId("d2"),
)


ABORT = AbortMigration(
    request_id=MOVE.request_id, attempt=1, move=3, source=MOVE.source, target=MOVE.target
)


class AskingState(RouterState):
    """A core that asks for something when a timer fires."""

    asks: Command = MOVE

    def handle(self, event: Event, *, now: float) -> list[Command]:
        return [self.asks] if isinstance(event, TimerFired) else super().handle(event, now=now)


@pytest.mark.parametrize("trigger", ["load", "cover", "need"])
def test_a_router_refuses_a_trigger(trigger: str) -> None:
    """At the start, with the key and what may stand there."""
    core = CoreConfig(migration=MigrationConfig(trigger=trigger))
    with pytest.raises(ValueError, match=r"core\.migration\.trigger must be \"none\""):
        RouterConfig(core=core)


async def test_a_move_is_refused_as_an_event() -> None:
    """The core hears that the request stays where it is."""
    async with Driver(AskingState(CoreConfig())) as driver:
        driver.handle(TimerFired())
        (answer,) = [each for _, each in driver.ring if isinstance(each, MigrationFailed)]
        assert (answer.move, answer.reason) == (3, Reason.UNSUPPORTED)
        assert not driver.broken.is_set()


async def test_giving_up_what_never_began_is_nothing() -> None:
    """Nobody has to be told."""
    state = AskingState(CoreConfig())
    state.asks = ABORT
    async with Driver(state) as driver:
        driver.handle(TimerFired())
        assert len(driver.ring) == 1
