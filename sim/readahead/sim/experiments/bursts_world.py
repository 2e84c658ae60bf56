"""A run through a spike: whom the planner promised to serve in time, and how long it takes to be
over it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from readahead.core.planning.knobs import knobs_of
from readahead.core.planning.policies.readahead import Readahead
from readahead.core.planning.policy import BatchPolicy, Choice, EngineView
from readahead.core.planning.readers import Readers
from readahead.core.planning.sacrifice import Job, moore_hodgson
from readahead.core.planning.sequence import Sequence as EngineSequence
from readahead.core.promise import Verdict
from readahead.core.reading.curves import CHECK_EVERY_TOKENS
from readahead.core.reading.timeline import Outcome
from readahead.ruler.run import Floats
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.experiments.capacity_promises import Kind, Promise
from readahead.sim.experiments.capacity_world import PATIENT_S, PromisingWorld, Scores
from readahead.sim.experiments.experiment import Value
from readahead.sim.experiments.windows import Window
from readahead.workload.session import Session, Turn

LOOK_S = 0.5
"""How often the queue is looked at."""
STEADY_S = 5.0
"""The queue is back once it stays for so long where it was before."""
BEFORE_S = 20.0
"""Time before the spike by which that is told."""
BIN_S = 10.0
"""Those who come in such a time are looked at together."""
IN_TIME = 0.9
"""Share of them whose promises are kept once it is over."""
BROKEN = 1000.0
"""Times of what was promised, of an answer that is not whole; rows hold no infinity."""


class Spike(NamedTuple):
    """When most come."""

    begin_s: float
    end_s: float

    def holds(self, at_s: float) -> bool:
        """Whether one who comes then is in it."""
        return self.begin_s <= at_s < self.end_s


def stretched(promised: Promise, times_s: Floats) -> float:
    """How many times of what was promised it took: 1 is just in time; at most BROKEN, which is also
    that of one without a token.

    By the reading SLO that is the longest wait for text, in all, over the wait allowed; by the
    staged one the greatest of the time to the first token, and of those from it to each place that
    is checked.
    """
    count = len(times_s)
    if not count:
        return BROKEN
    if promised.kind is Kind.READING:
        waited_s = times_s - promised.token_s * np.arange(count)
        return min(BROKEN, float(waited_s.max()) / promised.first_s)
    first = float(times_s[0]) / promised.first_s
    base_s = max(promised.first_s, float(times_s[0]))
    places = [*range(CHECK_EVERY_TOKENS - 1, count - 1, CHECK_EVERY_TOKENS), count - 1]
    later = [
        (float(times_s[place]) - base_s) / (promised.last_s(place + 1) - promised.first_s)
        for place in places
        if place
    ]
    return min(BROKEN, max([first, *later]))


class Telling(Readahead):
    """The policy, which also says whom its latest sacrifice set would have in time."""

    verdicts: dict[EngineSequence, bool]

    @classmethod
    def like(cls, policy: Readahead) -> Telling:
        """With the same knobs."""
        made = cls(**{knob.name: getattr(policy, knob.name) for knob in knobs_of(Readahead)})
        made.verdicts = {}
        return made

    def _order(
        self, view: EngineView, readers: Readers, prompts: list[EngineSequence], now: float
    ) -> tuple[list[EngineSequence], bool]:
        """The same order. Its sacrifice set is reckoned again, by the policy's own parts."""
        model = view.limits.latency
        if self.sacrifice and model is not None:
            speed = 1 - self._readers_share(readers, model)
            jobs = [Job(one.due_at - now, self._length_s(one, model) / speed) for one in prompts]
            kept = set(moore_hodgson(jobs).kept)
            self.verdicts = {one: place in kept for place, one in enumerate(prompts)}
        return super()._order(view, readers, prompts, now)


@dataclass(slots=True)
class Noted:
    """A policy whose verdicts are noted: whether each request is to be served in time."""

    inner: BatchPolicy
    first: dict[str, bool]
    """By request, as it was decided at the first look."""
    last: dict[str, bool]
    """As it was decided at the last look before its prompt was computed."""

    @property
    def name(self) -> str:
        """Of the policy."""
        return self.inner.name

    def choose(self, view: EngineView, now: float) -> Choice:
        """Its choice."""
        choice = self.inner.choose(view, now)
        if isinstance(self.inner, Telling):
            decided = list(self.inner.verdicts.items())
            self.inner.verdicts = {}
        else:
            decided = [
                (one, one.verdict is Verdict.ACCEPTED)
                for one in (*view.running, *view.waiting)
                if one.verdict is not Verdict.NEW
            ]
        for one, is_accepted in decided:
            if not one.generated:
                self.first.setdefault(one.request_id, is_accepted)
                self.last[one.request_id] = is_accepted
        return choice


def noting(policy: BatchPolicy, first: dict[str, bool], last: dict[str, bool]) -> Noted:
    """The policy, noted in these."""
    if isinstance(policy, Readahead):
        policy = Telling.like(policy)
    return Noted(policy, first, last)


class Seen(Scores):
    """Scores that keep the requests."""

    def __init__(self, spec: ClusterSpec, sessions: Iterable[Session], window: Window) -> None:
        super().__init__(spec, sessions, window)
        self.ended_requests: list[tuple[EndedRequest, Turn]] = []
        self._window = window

    def ended(self, request: EndedRequest, turn: Turn) -> None:
        """One of those who are scored has ended, or somebody else."""
        super().ended(request, turn)
        if self._window.start_s <= request.arrival_s < self._window.last_s:
            self.ended_requests.append((request, turn))

    def judged(self, kind: Kind) -> list[tuple[EndedRequest, float, bool]]:
        """Each with how far its promise was stretched, and whether it was kept; by arrival."""
        found = []
        for request, turn in self.ended_requests:
            promised = self._promise(turn, request.prompt_tokens, kind)
            times_s: Floats = np.array(request.token_times_s) - request.arrival_s
            is_whole = request.outcome is Outcome.FINISHED
            times = stretched(promised, times_s) if is_whole else BROKEN
            found.append((request, times, is_whole and promised.is_met(times_s)))
        return sorted(found, key=lambda one: one[0].arrival_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A cluster under a load with a spike."""

    spec: ClusterSpec
    whole: ClusterSpec
    """By which promises are made."""
    window: Window
    spike: Spike
    told: Kind
    seed: int

    def run(self, sessions: Sequence[Session], judged: Sequence[Kind]) -> list[dict[str, Value]]:
        """What happened, by each promise. It goes on until all scored ones have their answers."""
        first, last = dict[str, bool](), dict[str, bool]()
        make = self.spec.policy
        spec = replace(self.spec, policy=lambda role: noting(make(role), first, last))
        seen = Seen(self.whole, sessions, self.window)
        world = PromisingWorld(spec, sessions, scores=seen, told=self.told, seed=self.seed)
        now_s, queue = 0.0, list[tuple[float, int]]()
        while not seen.is_over and now_s < PATIENT_S:
            now_s += LOOK_S
            world.run(now_s)
            queue.append((now_s, sum(not asked.stretches for asked in world.asked.values())))
        numbers = seen.numbers(now_s, self.window.last_s - self.window.start_s)
        about: dict[str, Value] = {
            "spike_s": self.spike.begin_s,
            "seen_s": self.window.last_s - self.spike.end_s,
            "queue_most": max(waiting for _, waiting in queue),
            "queue_back_s": queue_back_s(queue, self.spike),
            "unended": numbers["unended"],
            "f1_tok_s": numbers["f1_tok_s"],
            "idle_p99_s": numbers["idle_p99_s"],
            "actions": world.kernel.done,
        }
        return [{**about, **self._by(kind, seen, first, last)} for kind in judged]

    def _by(
        self, kind: Kind, seen: Seen, first: dict[str, bool], last: dict[str, bool]
    ) -> dict[str, Value]:
        every = seen.judged(kind)
        inside = [one for one in every if self.spike.holds(one[0].arrival_s)]
        declined = [one for one in every if not first.get(one[0].request_id, True)]
        ended = [request.outcome is Outcome.FINISHED for request, _, _ in declined]
        found: dict[str, Value] = {
            "kind": kind.value,
            "requests": len(every),
            "attained": _share(is_met for _, _, is_met in every),
            "spike_requests": len(inside),
            "spike_attained": _share(is_met for _, _, is_met in inside),
            "spike_p99": _p99([times for _, times, _ in inside]),
            "declined": len(declined),
            "declined_finished": sum(ended),
            "declined_wait_max_s": max(
                (_first_s(request) for request, _, _ in declined), default=None
            ),
            "in_time_again_s": in_time_again_s(
                [(request.arrival_s, is_met) for request, _, is_met in every],
                self.spike,
                last_s=self.window.last_s,
            ),
        }
        for name, verdicts in (("first", first), ("last", last)):
            kept = [one for one in inside if verdicts.get(one[0].request_id, True)]
            found[f"{name}_share"] = len(kept) / len(inside) if inside else None
            found[f"{name}_attained"] = _share(is_met for _, _, is_met in kept)
            found[f"{name}_p99"] = _p99([times for _, times, _ in kept])
        return found


def _share(met: Iterable[bool]) -> float | None:
    found = list(met)
    return sum(found) / len(found) if found else None


def _p99(values: Sequence[float]) -> float | None:
    return float(np.percentile(values, 99, method="higher")) if values else None


def _first_s(request: EndedRequest) -> float:
    times_s = request.token_times_s
    return (times_s[0] if times_s else request.ended_s) - request.arrival_s


def queue_back_s(queue: Sequence[tuple[float, int]], spike: Spike) -> float | None:
    """Seconds from the spike's end until no more wait for a first token than at most did before
    it, for some time on end; None where that is not seen.

    Args:
        queue: times, ascending, and how many wait then.
    """
    before = [n for at_s, n in queue if spike.begin_s - BEFORE_S <= at_s < spike.begin_s]
    level = max(before, default=0)
    since_s: float | None = None
    for at_s, waiting in queue:
        if at_s < spike.end_s:
            continue
        if waiting > level:
            since_s = None
            continue
        since_s = at_s if since_s is None else since_s
        if at_s - since_s >= STEADY_S:
            return since_s - spike.end_s
    return None


def in_time_again_s(
    arrivals: Sequence[tuple[float, bool]], spike: Spike, *, last_s: float
) -> float | None:
    """Seconds from the spike's end after which nine of ten of those who come are in time; None
    where that is not seen.

    Args:
        arrivals: times, and whether each one's promise was kept.
        spike: what is to be got over.
        last_s: when the last of them can come.
    """
    begin_s = spike.end_s
    while begin_s + BIN_S <= last_s:
        met = [is_met for at_s, is_met in arrivals if begin_s <= at_s < begin_s + BIN_S]
        if sum(met) >= IN_TIME * len(met):
            return begin_s - spike.end_s
        begin_s += 1.0
    return None
