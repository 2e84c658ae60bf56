"""A toy of a server, to show the tricks below and past saturation. Its results are simulated.

One engine, Poisson arrivals, first come first served into a batch of limited size. Each step
takes `step_s + request_s x batch + prompt_token_s x prompt tokens admitted in it`, and gives each
request of the batch a token; a prompt that joins therefore stalls everybody for one step. There
is no KV memory, no preemption, no network. For real engines there is the load generator.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from readahead.core.reading.curves import EPSILON_S, ReadingCurve
from readahead.core.reading.timeline import Outcome, Timeline

SIMULATED = "simulated"
"""The label of everything made here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyServer:
    """The engine. The defaults have the size of an 8B model on one large GPU."""

    step_s: float = 0.02
    request_s: float = 0.0005
    prompt_token_s: float = 0.0001
    batch_max: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyWorkload:
    """Who comes, and with what. Lengths are lognormal: many short ones, few long."""

    rate_req_s: float
    requests: int = 400
    prompt_tokens_median: int = 500
    output_tokens_median: int = 150
    sigma: float = 0.7
    prompt_tokens_max: int = 8000
    output_tokens_max: int = 1000
    seed: int = 0

    def arrivals(self) -> Iterator[tuple[float, int, int]]:
        """Arrival time, prompt tokens, output tokens of each; another rate keeps the lengths."""
        gaps = Random(f"{self.seed}/arrivals")
        lengths = Random(f"{self.seed}/lengths")
        at = 0.0
        for _ in range(self.requests):
            at += gaps.expovariate(1.0) / self.rate_req_s
            prompt_tokens = self._length(lengths, self.prompt_tokens_median)
            output_tokens = self._length(lengths, self.output_tokens_median)
            yield (
                at,
                min(prompt_tokens, self.prompt_tokens_max),
                min(output_tokens, self.output_tokens_max),
            )

    def _length(self, lengths: Random, median: int) -> int:
        return max(1, round(lengths.lognormvariate(math.log(median), self.sigma)))


@dataclass(slots=True, kw_only=True)
class _Running:
    request_id: str
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    token_times_s: list[float] = field(default_factory=list)
    ended_s: float | None = None

    def next_due_s(self, slo: ReadingCurve) -> float:
        return self.arrival_s + slo.offset_s + (len(self.token_times_s) + 1) / slo.pace_tok_s

    def timeline(self, slo: ReadingCurve) -> Timeline:
        if len(self.token_times_s) == self.output_tokens:
            outcome = Outcome.FINISHED
        else:
            outcome = Outcome.CANCELLED if self.token_times_s else Outcome.REJECTED
        return Timeline(
            request_id=self.request_id,
            arrival_s=self.arrival_s,
            token_times_s=self.token_times_s,
            prompt_tokens=self.prompt_tokens,
            outcome=outcome,
            ended_s=self.ended_s,
            made_times_s=tuple(self.token_times_s),
            slo=slo,
        )


def simulate(
    workload: ToyWorkload,
    *,
    slo: ReadingCurve,
    server: ToyServer | None = None,
    abandons: bool = False,
) -> list[Timeline]:
    """What becomes of the workload, in the order of arrival.

    With `abandons`, a request is ended at the end of the step in which it misses its SLO, whether
    it waits or runs, and its place goes to the next. Each simulated step takes O(batch + queue).
    """
    server = server or ToyServer()
    everyone = [
        _Running(
            request_id=f"toy-{index}",
            arrival_s=at,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
        )
        for index, (at, prompt_tokens, output_tokens) in enumerate(workload.arrivals())
    ]
    coming, waiting, batch = deque(everyone), deque[_Running](), list[_Running]()
    now = 0.0
    while coming or waiting or batch:
        if not waiting and not batch:
            now = max(now, coming[0].arrival_s)
        while coming and coming[0].arrival_s <= now:
            waiting.append(coming.popleft())
        if abandons:
            waiting = deque(_keep(waiting, slo, now))
            batch = _keep(batch, slo, now)
        if waiting or batch:
            now = _step(server, waiting, batch, now)
    return [one.timeline(slo) for one in everyone]


def _step(server: ToyServer, waiting: deque[_Running], batch: list[_Running], now: float) -> float:
    """One iteration: at most one prompt joins, everyone in the batch gets a token."""
    prompt_tokens = 0
    if waiting and len(batch) < server.batch_max:
        joins = waiting.popleft()
        prompt_tokens = joins.prompt_tokens
        batch.append(joins)
    now += server.step_s + server.request_s * len(batch) + server.prompt_token_s * prompt_tokens
    for one in batch:
        one.token_times_s.append(now)
        if len(one.token_times_s) == one.output_tokens:
            one.ended_s = now
    batch[:] = [one for one in batch if one.ended_s is None]
    return now


def _keep(
    requests: deque[_Running] | list[_Running], slo: ReadingCurve, now: float
) -> list[_Running]:
    """Those that have not missed; the others end now."""
    kept = []
    for one in requests:
        if now <= one.next_due_s(slo) + EPSILON_S and not _came_late(one, slo):
            kept.append(one)
        else:
            one.ended_s = now
    return kept


def _came_late(one: _Running, slo: ReadingCurve) -> bool:
    """Whether the last token missed; earlier ones were looked at in their turn."""
    last_s = one.token_times_s[-1] if one.token_times_s else -math.inf
    return last_s > one.next_due_s(slo) - 1 / slo.pace_tok_s + EPSILON_S
