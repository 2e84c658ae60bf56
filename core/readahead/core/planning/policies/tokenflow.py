"""TokenFlow: a working set of streams, chosen by how much their readers have buffered."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.planning.chunks import prefill_s
from readahead.core.planning.knobs import check_knobs, knob
from readahead.core.planning.policies.served import Served, blocks_at_hand, carry_out
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.quantum import Quantum
from readahead.core.planning.sequence import Sequence


@dataclass(slots=True, kw_only=True)
class TokenFlow:
    """Streams with a full buffer give way to those with an empty one, if the way back is covered.

    While readers together want no more than the engine makes, the working set is chosen anew each
    quantum: greedily by utility, then by swaps of neighbours. Somebody may be preempted only if
    his buffer lasts for eviction, reload and scheduling. Otherwise first come, first served.

    Ref: [TokenFlow]
    Differs: KV is never kept on the host, so reload is recompute and eviction is free, as the
    source does where that is cheaper; the risk of running dry is counted as what serving avoids;
    an arrival or an end is decided upon at once.
    """

    name: ClassVar[str] = "tokenflow"
    quantum_iterations: int = knob(20, least=1, most=1000, meaning="Iterations between decisions.")
    mu: float = knob(
        1.0,
        least=1,
        most=10,
        meaning="Buffer that one must have to be preempted, in times of "
        "what it takes him to come back.",
    )
    scheduling_s: float = knob(
        0.1, least=0, most=10, meaning="Time until one that was preempted is looked at again."
    )
    buffer_s: float = knob(
        4.0, least=0.1, most=120, meaning="Buffer up to which a token has its full value, seconds."
    )
    decay: float = knob(
        0.1, least=0, most=10, meaning="Value that a token loses for each second beyond."
    )
    gamma: float = knob(
        1.0, least=0, most=100, meaning="Weight of the risk of running dry, e^-buffer in seconds."
    )
    working_set: float = knob(
        1.0, least=0.1, most=1, meaning="Working set as a share of the streams that memory holds."
    )
    batch_tokens: int = knob(2048, least=16, most=16384, meaning="Tokens in an iteration.")
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
        everybody = [*view.running, *(s for s in view.waiting if not s.is_pulled)]
        pulls = [s for s in view.waiting if s.is_pulled]
        in_order = Served(order=[*everybody, *pulls])
        if not everybody or not _is_schedulable(view, everybody):
            return in_order
        limits, model = view.limits, view.limits.latency
        capacity = blocks_at_hand(view) - sum(limits.blocks_for(s.known) for s in pulls)
        weights = {s: limits.blocks_for(s.known + 1) for s in everybody}
        room = limits.requests_max - view.pulling - len(pulls)
        if sum(weights.values()) <= capacity and len(everybody) <= room:
            return in_order
        mean = sum(weights.values()) / len(everybody)
        size = max(1, min(room, int(self.working_set * capacity / mean)))
        fixed = [s for s in view.running if not self._may_go(s, now, model)]
        values = {s: self._utility(s, now) for s in everybody}
        picked = _choose_set(fixed, everybody, values, weights, (capacity, size))
        chosen = set(picked)
        preempt = []
        if any(not s.blocks for s in picked):
            preempt = [s for s in view.running if s not in chosen]
        else:
            picked += [s for s in view.running if s not in chosen]
        return Served(order=[*picked, *pulls], preempt=preempt)

    def _may_go(self, sequence: Sequence, now: float, model: LatencyModel | None) -> bool:
        """Whether his buffer covers the way back."""
        back_s = self.scheduling_s
        if model is not None:
            back_s += prefill_s(0, sequence.known, model)
        return sequence.missing == 1 and sequence.due_at - now >= self.mu * back_s

    def _utility(self, sequence: Sequence, now: float) -> float:
        """Value of a token at this buffer, and the risk of running dry that it avoids."""
        buffer_s = max(0.0, sequence.due_at - now) if sequence.generated else 0.0
        value = max(0.0, 1 - self.decay * max(0.0, buffer_s - self.buffer_s))
        return value + self.gamma * math.exp(-buffer_s)


def _is_schedulable(view: EngineView, everybody: list[Sequence]) -> bool:
    """Whether the engine makes as many tokens a second as all readers read."""
    model, limits = view.limits.latency, view.limits
    if model is None:
        return True
    mean = sum(s.known for s in everybody) / len(everybody)
    held = int(blocks_at_hand(view) * limits.block_tokens / mean)
    size = max(1, min(len(everybody), limits.requests_max, held))
    work = IterationWork(tokens=size, requests=size, past_tokens=int(mean * size), prefill_pairs=0)
    return sum(s.pace_tok_s for s in everybody) <= size / iteration_s(work, model=model)


def _choose_set(
    fixed: list[Sequence],
    everybody: list[Sequence],
    values: dict[Sequence, float],
    weights: dict[Sequence, int],
    bounds: tuple[int, int],
) -> list[Sequence]:
    """Greedily by utility beside those that must stay, then swaps of neighbours in that order."""
    capacity, size = bounds
    capacity -= sum(weights[s] for s in fixed)
    size -= len(fixed)
    stays = set(fixed)
    order = sorted((s for s in everybody if s not in stays), key=lambda s: -values[s])
    is_in = []
    for sequence in order:
        fits = size > 0 and weights[sequence] <= capacity
        is_in.append(fits)
        if fits:
            capacity, size = capacity - weights[sequence], size - 1
    for i in range(len(order) - 1):
        first, second = order[i], order[i + 1]
        gains = values[first] > values[second]
        if not is_in[i] and is_in[i + 1] and gains:
            left = capacity + weights[second] - weights[first]
            if left >= 0:
                is_in[i], is_in[i + 1], capacity = True, False, left
    return [*fixed, *(s for s, fits in zip(order, is_in, strict=True) if fits)]
