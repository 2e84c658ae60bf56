"""Records what a router's core was told, and tells another one the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from readahead.core.messages import Command, Event
from readahead.core.router_state import RouterState


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event, when it was told, and what came of it."""

    now: float
    event: Event
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Where a replay first went another way."""

    index: int
    told: Told
    commands: tuple[Command, ...]
    """What the replay wanted instead."""


class RecordingRouter:
    """A router's core that keeps what it is told. It stands in its place in any driver."""

    def __init__(self, router: RouterState) -> None:
        self._router = router
        self.log: list[Told] = []

    def handle(self, event: Event, *, now: float) -> list[Command]:
        """As the core does."""
        commands = self._router.handle(event, now=now)
        self.log.append(Told(now=now, event=event, commands=tuple(commands)))
        return commands

    def next_deadline(self) -> float | None:
        """As the core does."""
        return self._router.next_deadline()


def replay(log: Iterable[Told], router: RouterState) -> Deviation | None:
    """Tells a new core the same, and returns the first answer that differs; None for none."""
    for index, told in enumerate(log):
        commands = tuple(router.handle(told.event, now=told.now))
        if commands != told.commands:
            return Deviation(index=index, told=told, commands=commands)
    return None
