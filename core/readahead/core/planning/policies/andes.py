"""Andes: the readers whose experience gains most per token of context are served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.planning.chunks import prefill_s
from readahead.core.planning.knobs import check_knobs, knob, switch
from readahead.core.planning.policies.served import Served, blocks_at_hand, carry_out
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.quantum import Quantum
from readahead.core.planning.sequence import Sequence

EXPERIENCE_S_MIN = 0.1
"""Shortest time over which an experience is averaged: at its first instant it has no value."""


@dataclass(slots=True, kw_only=True)
class Andes:
    """A knapsack of readers, packed anew each quantum; preemption only where it pays.

    What one gains is the part of his whole possible delay over the horizon that serving him saves,
    by a reader who stalls and goes on. His weight is his context, the capacity is the KV memory.
    Packed greedily by gain per block for each batch size worth trying; then those who would be
    preempted are weighed against those who come in, the cost of recomputing included.

    Ref: [Andes]
    Differs: recomputes where the source also swaps; prompts in chunks beside decodes, which the
    source's engine lacked; delays before the decision, which serving cannot change, drop out of
    the difference and are not kept; a new arrival or an end is decided upon at once; two batch
    sizes are tried: all that memory holds, and the most that each reader's pace allows.
    """

    name: ClassVar[str] = "andes"
    quantum_iterations: int = knob(20, least=1, most=1000, meaning="Iterations between decisions.")
    horizon_s: float = knob(5.0, least=0.05, most=60, meaning="How far ahead gains are counted.")
    first_token_s: float = knob(
        1.3, least=0, most=30, meaning="Expected time to the first token. The source's target."
    )
    batch_tokens: int = knob(2048, least=16, most=16384, meaning="Tokens in an iteration.")
    refine: bool = switch(True, meaning="Preempt only where the net gain is positive.")
    _served: Served = field(default_factory=Served, repr=False)
    _quantum: Quantum = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_knobs(self)
        self._quantum = Quantum(iterations=self.quantum_iterations)

    def choose(self, view: EngineView, now: float) -> Choice:
        """The next iteration's choice."""
        if self._quantum.is_over(view):
            self._served = self._decide(view, now)
        return carry_out(view, self._served, self._quantum, batch_tokens=self.batch_tokens)

    def _decide(self, view: EngineView, now: float) -> Served:
        model = view.limits.latency
        everybody = [*view.running, *(s for s in view.waiting if not s.is_pulled)]
        pulls = [s for s in view.waiting if s.is_pulled]
        capacity = blocks_at_hand(view) - sum(view.limits.blocks_for(s.known) for s in pulls)
        weights = {s: view.limits.blocks_for(s.known + 1) for s in everybody}
        room = view.limits.requests_max - view.pulling - len(pulls)
        if sum(weights.values()) <= capacity and len(everybody) <= room and model is None:
            return Served(order=[*everybody, *pulls])
        sizes = self._sizes(everybody, room, capacity, weights, model)
        if not sizes:
            return Served(order=[*view.running, *pulls])
        best: list[Sequence] = []
        gains: dict[Sequence, float] = {}
        most = -1.0
        for size in sizes:
            rate_tok_s = _rate_tok_s(everybody, size, model)
            tried = {s: self._gain(s, now, rate_tok_s, model) for s in everybody}
            picked = _pack(everybody, tried, weights, capacity=capacity, size=size)
            total = sum(tried[s] for s in picked)
            if total > most:
                best, gains, most = picked, tried, total
        served = set(best)
        preempted = [s for s in view.running if s not in served]
        if self.refine:
            best, preempted = self._refine(view, best, preempted, gains, weights, capacity)
        else:
            preempted = preempted if any(not s.blocks for s in best) else []
        return Served(order=[*best, *pulls], preempt=preempted)

    def _sizes(
        self,
        everybody: list[Sequence],
        room: int,
        capacity: int,
        weights: dict[Sequence, int],
        model: LatencyModel | None,
    ) -> list[int]:
        """Batch sizes worth trying, the greatest first; none where nobody fits."""
        fit = used = 0
        for weight in sorted(weights.values()):
            used += weight
            if used > capacity:
                break
            fit += 1
        fit = min(fit, room)
        if model is None or fit < 2:
            return [fit] if fit > 0 else []
        pace_tok_s = max(s.pace_tok_s for s in everybody)
        low, high = 1, fit
        while low < high:  # the rate falls as the batch grows
            middle = (low + high + 1) // 2
            if _rate_tok_s(everybody, middle, model) >= pace_tok_s:
                low = middle
            else:
                high = middle - 1
        return [fit] if low == fit else [fit, low]

    def _gain(
        self, sequence: Sequence, now: float, rate_tok_s: float, model: LatencyModel | None
    ) -> float:
        """QoE over the horizon if served, less that if not."""
        pace_tok_s = sequence.pace_tok_s
        starts_at = sequence.arrived_at + self.first_token_s
        whole_s = self.horizon_s - (starts_at - now)
        if whole_s <= EXPERIENCE_S_MIN:
            return 0.0
        ready_s = 0.0
        if sequence.missing > 1 and model is not None:
            ready_s = prefill_s(sequence.computed, sequence.missing, model)
        due_at = sequence.due_at if sequence.generated else starts_at
        from_s = max(due_at - now, ready_s, 0.0)
        saved_s = max(0.0, self.horizon_s - from_s)
        # Areas between curves of tokens read over time: what is read thanks to being served, and
        # the greatest delay there can be, everything at the end.
        # For one who has just come both are the same, and ties must not be left to rounding.
        return min(rate_tok_s / pace_tok_s, 1.0) * (saved_s / whole_s) ** 2

    def _refine(
        self,
        view: EngineView,
        picked: list[Sequence],
        preempted: list[Sequence],
        gains: dict[Sequence, float],
        weights: dict[Sequence, int],
        capacity: int,
    ) -> tuple[list[Sequence], list[Sequence]]:
        """Takes back newcomers that gain less than those whom they push out lose."""
        model = view.limits.latency
        free = capacity - sum(weights[s] for s in view.running)
        slots = view.limits.requests_max - view.pulling - len(view.running)
        order = [s for s in picked if s.blocks]
        leaving = sorted(preempted, key=lambda s: gains[s] / weights[s], reverse=True)
        gone: list[Sequence] = []
        for newcomer in (s for s in picked if not s.blocks):
            pushed: list[Sequence] = []
            room, seats = free - weights[newcomer], slots - 1
            while (room < 0 or seats < 0) and len(pushed) < len(leaving):
                victim = leaving[-1 - len(pushed)]
                pushed.append(victim)
                room, seats = room + weights[victim], seats + 1
            lost = sum(gains[s] + self._cost(s, model) for s in pushed)
            if room < 0 or seats < 0 or (pushed and gains[newcomer] <= lost):
                continue
            del leaving[len(leaving) - len(pushed) :]
            gone += pushed
            free, slots = room, seats
            order.append(newcomer)
        stay = len(picked) - len(order)  # in the seats of newcomers who were taken back
        return order + leaving[: max(0, stay)], gone

    def _cost(self, sequence: Sequence, model: LatencyModel | None) -> float:
        """What recomputing costs: the part of a horizon in which its reader would go without."""
        if model is None:
            return 0.0
        seconds = prefill_s(0, sequence.known, model)
        return min(1.0, 2 * seconds / self.horizon_s)


def _rate_tok_s(everybody: list[Sequence], size: int, model: LatencyModel | None) -> float:
    """Tokens a second for each of so many with the mean context."""
    if model is None:
        return float("inf")
    past = sum(s.known for s in everybody) * size // len(everybody)
    work = IterationWork(tokens=size, requests=size, past_tokens=past, prefill_pairs=0)
    return 1 / iteration_s(work, model=model)


def _pack(
    everybody: list[Sequence],
    gains: dict[Sequence, float],
    weights: dict[Sequence, int],
    *,
    capacity: int,
    size: int,
) -> list[Sequence]:
    """Greedy knapsack by gain per block; ties to those that run, then to the earlier."""
    picked: list[Sequence] = []
    order = sorted(everybody, key=lambda s: -gains[s] / weights[s])
    for sequence in order:
        if len(picked) == size:
            break
        if weights[sequence] <= capacity:
            capacity -= weights[sequence]
            picked.append(sequence)
    return picked
