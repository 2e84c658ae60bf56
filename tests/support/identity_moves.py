"""Readers who are sent between two stepped engines in every way at once, by a seeded plan.

Nothing here depends on the clock, but for what the policy `readahead` thinks of its readers and
for when a pull is over.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from identity_moves_engine import News, Order, totals, turn
from stepped_engine import RemoteEngine

from readahead.services.engine.vllm_handover import PREFILL_PARAMS

HANDED_OVER = 0.6
"""Share of the requests whose prompt is computed elsewhere."""
PARKED = 0.06
OFFERED = 0.08
"""Chances that one who runs is parked, or offered to the other engine, at a turn."""
RESUMED = 0.3
MOVED_PARKED = 0.15
"""Chances of one who is parked by a command."""
TAKEN_BACK = 0.15
"""Chance that one who was offered stays after all, before the other engine has begun."""
GIVEN_UP = 0.2
"""Chance that he stays although the other engine has begun."""
TURNS_MAX = 20_000

Params = dict[str, Any]
Place = tuple[int, str]
"""An engine, and the leg that is there."""


@dataclass(slots=True)
class World:
    """What all readers see: the engines' last news, and the tally that they keep."""

    news: list[News] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, kw_only=True)
class Reader:
    """One request, wherever it is. Its life yields an order, or None, for each turn."""

    index: int
    prompt: list[int]
    tokens: int
    rng: random.Random
    world: World
    told: list[int] = field(default_factory=list)
    """What legs that are over have made."""
    legs: int = 0
    is_over: bool = False

    def live(self) -> Generator[Order | None, Any, None]:
        """From arrival to end."""
        at, params = yield from self._arrive()
        leg = self._new_leg()
        yield self._begin(at, leg, params)
        while not self._has_ended(at, leg):
            chance = self.rng.random()
            if chance < PARKED:
                at, leg = yield from self._park(at, leg)
            elif chance < PARKED + OFFERED:
                at, leg = yield from self._migrate(at, leg)
            else:
                yield None

    def _arrive(self) -> Generator[Order | None, Any, tuple[int, Params | None]]:
        """The engine that decodes, and what it needs to pull the prompt's KV."""
        at = self.rng.randrange(2)
        if self.rng.random() >= HANDED_OVER:
            return at, None
        leg = self._new_leg()
        yield self._add(at, leg, self.prompt, 1, dict(PREFILL_PARAMS))
        while leg not in self.world.news[at].ended:
            yield None
        self.world.tally["handovers"] += 1
        return 1 - at, self.world.news[at].handovers[leg]

    def _park(self, at: int, leg: str) -> Generator[Order | None, Any, Place]:
        """Away for some turns; he may come back on the other engine."""
        tally = self.world.tally
        reason, has_drafts = yield Order(at, "park", (leg,))
        if reason:
            tally["refusals"] += 1
            return at, leg
        tally["parks"] += 1
        tally["moves_with_drafts"] += has_drafts
        while not self._has_ended(at, leg):
            chance = self.rng.random()
            if chance < RESUMED:
                tally["resumes"] += yield Order(at, "resume", (leg,))
                break
            if chance < RESUMED + MOVED_PARKED:
                tally["offers_of_parked"] += 1
                return (yield from self._migrate(at, leg))
            yield None
        return at, leg

    def _migrate(self, at: int, leg: str) -> Generator[Order | None, Any, Place]:
        """As a router does it: stop here, begin there, and leave here once a token came there."""
        tally, news = self.world.tally, self.world.news
        params, has_drafts = yield Order(at, "offer", (leg,))
        if not params:
            tally["refusals"] += 1
            return at, leg
        tally["moves_with_drafts"] += has_drafts
        while leg not in news[at].settled:
            if self._has_ended(at, leg):
                yield Order(at, "leave", (leg,))
                return at, leg
            yield None
        if self.rng.random() < TAKEN_BACK:
            tally["taken_back"] += yield Order(at, "resume", (leg,))
            return at, leg
        made, there, new_leg = news[at].tokens[leg], 1 - at, self._new_leg()
        known = len(self.prompt) + len(self.told) + len(made)
        params["remote_num_tokens"] = min(params["remote_num_tokens"], known - 1)
        yield self._begin(there, new_leg, params, made)
        if self.rng.random() < GIVEN_UP:
            yield Order(there, "leave", (new_leg,))
            tally["given_up"] += yield Order(at, "resume", (leg,))
            return at, leg
        while not news[there].tokens[new_leg]:
            yield None
        tally["migrations"] += 1
        self.told += made
        self._has_ended(there, new_leg)
        yield Order(at, "leave", (leg,))
        return there, new_leg

    def _has_ended(self, at: int, leg: str) -> bool:
        """To be asked at each turn: an engine tells of an end once."""
        news = self.world.news[at]
        if not self.is_over and leg in news.ended:
            self.told += news.tokens[leg]
            self.is_over = True
        return self.is_over

    def _new_leg(self) -> str:
        self.legs += 1
        return f"{self.index}.{self.legs}"

    def _begin(self, at: int, leg: str, params: Params | None, made: Sequence[int] = ()) -> Order:
        """The rest of the output, after what was told and then made."""
        output = [*self.told, *made]
        return self._add(at, leg, self.prompt + output, self.tokens - len(output), params)

    def _add(
        self, at: int, leg: str, prompt: list[int], tokens: int, params: Params | None
    ) -> Order:
        return Order(at, "add", (leg, prompt, tokens, params, self.rng.randrange(1 << 30)))


@dataclass(slots=True)
class Journey:
    """All readers on their ways, a turn at a time."""

    engines: Sequence[RemoteEngine]
    rng: random.Random
    world: World
    lives: dict[int, Generator[Order | None, Any, None]] = field(default_factory=dict)
    orders: dict[int, Order | None] = field(default_factory=dict)
    """What each reader wants of the next turn."""

    def begin(self, reader: Reader) -> None:
        """A reader arrives."""
        self.lives[reader.index] = reader.live()
        self.orders[reader.index] = next(self.lives[reader.index])

    def turn(self, pool: Executor) -> None:
        """Each engine runs some iterations, and each reader hears of it."""
        orders = [_weather(at, self.rng) for at in range(len(self.engines))]
        asked = {}
        for index, order in self.orders.items():
            if order is not None:
                asked[index] = order.at, len(orders[order.at])
                orders[order.at].append(order)
        steps = [self.rng.choice((1, 1, 2, 3)) for _ in self.engines]
        news = self.world.news
        news[:] = pool.map(
            lambda engine, told, count: engine.do(turn, told, count), self.engines, orders, steps
        )
        for index in list(self.lives):
            reply = None
            if index in asked:
                at, place = asked[index]
                reply = news[at].replies[place]
            try:
                self.orders[index] = self.lives[index].send(reply)
            except StopIteration:
                del self.lives[index], self.orders[index]


def travel(
    engines: Sequence[RemoteEngine],
    prompts: Sequence[list[int]],
    *,
    tokens: Sequence[int],
    seed: int,
) -> tuple[list[list[int]], dict[str, float]]:
    """Sends all on their ways.

    Returns:
        What each was told; and how often what has happened, by readers' own tally, and by what
        the engines have counted, which has "engines_" before its names.
    """
    rng, world = random.Random(seed), World()
    readers = [
        Reader(
            index=index,
            prompt=prompt,
            tokens=tokens[index],
            rng=random.Random(f"{seed}-{index}"),
            world=world,
        )
        for index, prompt in enumerate(prompts)
    ]
    before = _sums(engines)
    journey, pending = Journey(engines, rng, world), list(readers)
    turns = chunks = 0
    with ThreadPoolExecutor(len(engines)) as pool:
        while pending or journey.lives:
            while pending and rng.random() < 0.5:
                journey.begin(pending.pop(0))
            journey.turn(pool)
            turns += 1
            chunks += sum(each.chunks for each in world.news)
            assert turns < TURNS_MAX, f"stuck: {sorted(journey.lives)}"
    counted = {name: count - before.get(name, 0) for name, count in _sums(engines).items()}
    return [reader.told for reader in readers], {
        **world.tally, "turns": turns, "chunks": chunks, **counted,
    }  # fmt: skip


def _weather(at: int, rng: random.Random) -> list[Order]:
    """What changes for all in an engine: who plans iterations, who cuts drafts."""
    return [
        Order(at, what, (rng.randrange(1 << 30),))
        for what, chance in (("plan", 0.25), ("cut", 0.1))
        if rng.random() < chance
    ]


def _sums(engines: Sequence[RemoteEngine]) -> dict[str, float]:
    found: dict[str, float] = {}
    for engine in engines:
        for name, count in engine.do(totals).items():
            found[f"engines_{name}"] = found.get(f"engines_{name}", 0) + count
    return found
