"""The sessions of the capacity experiment, and a first guess of how many a cluster carries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice

from readahead.core.latency.iteration import IterationWork, iteration_s
from readahead.core.planning.chunks import prefill_s
from readahead.sim.experiments.capacity_cells import MACHINES, SCENARIOS
from readahead.sim.experiments.capacity_promises import PACE_TOK_S
from readahead.workload.plan import plan
from readahead.workload.reader import Reader
from readahead.workload.session import Session
from readahead.workload.spec import workload_spec

CONTEXT_TOKENS_MAX = 16_384
"""Longer requests are left out where the model would take them."""
SESSIONS_MAX = 200_000


class Recorded:
    """One seed's sessions at one a second: those that fit the model's context, as in the paper.

    They are the same for every policy, and at every rate but for the time between them.
    """

    def __init__(self, machine: str, scenario: str, seed: int) -> None:
        about = SCENARIOS[scenario]
        parameters: dict[str, object] = {"large": MACHINES[machine].is_large}
        if about.parts:
            parameters["parts"] = dict(about.parts)
        tree = {
            "mix": [{"scenario": about.scenario, "parameters": parameters}],
            "arrivals": about.arrivals,
            "seed": seed,
            "limits": {"sessions": SESSIONS_MAX},
        }
        self._most = min(CONTEXT_TOKENS_MAX, MACHINES[machine].found.context_tokens_max)
        self._made = map(_alike, filter(self._fits, plan(workload_spec(tree))))
        self._kept: list[Session] = []
        self.drawn = 0
        """Sessions looked at so far, those that do not fit too."""

    def _fits(self, session: Session) -> bool:
        self.drawn += 1
        last = len(session.turns) - 1
        tokens = session.prompt_tokens(last) + session.turns[last].output_tokens
        return tokens <= self._most

    def first(self, count: int) -> list[Session]:
        """The first so many."""
        self._kept += islice(self._made, max(0, count - len(self._kept)))
        return self._kept[:count]

    def until(self, end_s: float, *, rate_req_s: float, kept_share: float) -> list[Session]:
        """All that arrive by then at a rate."""
        scale = kept_share / rate_req_s
        found: list[Session] = []
        for session in self._endless():
            at_s = session.arrival_s * scale
            if at_s >= end_s:
                return found
            found.append(replace(session, arrival_s=at_s))
        return found

    def _endless(self) -> Iterator[Session]:
        place = 0
        while len(chunk := self.first(place + 256)[place:]):
            yield from chunk
            place += len(chunk)


def _alike(session: Session) -> Session:
    """With a reader like all others."""
    return replace(session, reader=Reader(pace_tok_s=PACE_TOK_S))


@cache
def recorded(machine: str, scenario: str, seed: int) -> Recorded:
    """The sessions, kept for the next rate."""
    return Recorded(machine, scenario, seed)


SAMPLE = 2000
SAMPLE_SEED = 1_000_003
"""Of sessions from which means are taken; run by nobody."""


@cache
def kept_share(machine: str, scenario: str) -> float:
    """Share of the scenario's sessions that fit the model's context."""
    sampled = recorded(machine, scenario, SAMPLE_SEED)
    return len(sampled.first(SAMPLE)) / sampled.drawn


BUSY_SHARE = 0.8
"""Of a cluster's time that is used when its capacity is first guessed."""


@cache
def guess_req_s(machine: str, scenario: str) -> float:
    """Sessions a second that the cluster computes in full batches, and somewhat less."""
    about = MACHINES[machine]
    model, found = about.found.latency, about.found
    sample = recorded(machine, scenario, SAMPLE_SEED).first(SAMPLE)
    prompts = [
        (one.prompt_tokens(turn), one.turns[turn].output_tokens)
        for one in sample
        for turn in range(len(one.turns))
    ]
    computed_s = sum(prefill_s(0, tokens, model) for tokens, _ in prompts)
    answers = sum(tokens for _, tokens in prompts)
    context = sum((tokens + answer / 2) * answer for tokens, answer in prompts) / answers
    batch = max(1, min(256, int(found.kv_capacity_tokens / context)))
    work = IterationWork(
        tokens=batch, requests=batch, past_tokens=int(batch * context), prefill_pairs=0
    )
    decoded_s = answers * iteration_s(work, model=model) / batch
    return BUSY_SHARE * about.workers * len(sample) / (computed_s + decoded_s)
