"""How long prompts take: by the model of iteration times, corrected by what was seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from readahead.core.config import MigrationConfig
from readahead.core.latency.iteration import LatencyModel
from readahead.core.planning.chunks import prefill_s
from readahead.core.request import RequestId, WorkerId

NOMINAL_TOKEN_S = 1e-4
"""Of a prompt's token before any was seen, where there is no model."""

PRIOR_S = 0.05
"""Weight of what is believed at first: that of about one prompt."""

MEMORY = 0.95
"""Of all that was seen, at each prompt: some twenty prompts count."""


@dataclass(slots=True)
class Ratio:
    """How much longer things take than was foreseen, over the last some twenty."""

    seen_s: float = PRIOR_S
    foreseen_s: float = PRIOR_S

    def learn(self, *, seen_s: float, foreseen_s: float) -> None:
        """Takes note of one that is over."""
        self.seen_s = MEMORY * self.seen_s + seen_s
        self.foreseen_s = MEMORY * self.foreseen_s + foreseen_s

    @property
    def value(self) -> float:
        """Above 1: longer."""
        return self.seen_s / self.foreseen_s


@dataclass(slots=True)
class _Queue:
    """Prompts that one worker was given and has not computed."""

    foreseen_s: dict[RequestId, float] = field(default_factory=dict)
    since: float = 0.0
    """When the worker turned to those that are left, seconds on the driver's clock."""


class PromptTimes:
    """Queues of prompts, in seconds, and how long one more takes.

    A worker is taken to compute its prompts one after another, whatever the order: time between
    two ends is that of the second. So the mean is right for batches and for any policy.
    """

    def __init__(self, link: MigrationConfig, *, latency: LatencyModel | None) -> None:
        """Knows nothing of any worker.

        Args:
            link: what a KV cache takes from one worker to another, at first.
            latency: iteration times; None: as they show.
        """
        self._link, self._latency = link, latency
        self._prompts, self._handovers = Ratio(), Ratio()
        self._queues: dict[WorkerId, _Queue] = {}

    def length_s(self, tokens: int) -> float:
        """Seconds that so many prompt tokens take a worker which does nothing else."""
        return self._prompts.value * self._foreseen_s(tokens)

    def handover_s(self, tokens: int) -> float:
        """Seconds from the end of such a prompt on one worker to its first token on another."""
        return self._handovers.value * self._link.landing_s(tokens)

    def queue_s(self, worker_id: WorkerId, *, now: float) -> float:
        """Seconds until a worker has computed the prompts that it has.

        One that is overdue is expected to take as long again as it is overdue.
        """
        queue = self._queues.get(worker_id)
        if queue is None or not queue.foreseen_s:
            return 0.0
        whole_s = self._prompts.value * sum(queue.foreseen_s.values())
        return abs(whole_s - (now - queue.since))

    def keep(self, worker_id: WorkerId, request_ids: Iterable[RequestId]) -> None:
        """Forgets prompts that the worker no longer has: cancelled, failed or lost."""
        if queue := self._queues.get(worker_id):
            queue.foreseen_s = {
                each: queue.foreseen_s[each] for each in request_ids if each in queue.foreseen_s
            }

    def forget(self, worker_id: WorkerId) -> None:
        """The worker is gone."""
        self._queues.pop(worker_id, None)

    def prompts(self, worker_id: WorkerId) -> Iterable[RequestId]:
        """Those that it was given and has not computed."""
        queue = self._queues.get(worker_id)
        return () if queue is None else queue.foreseen_s.keys()

    def given(
        self, worker_id: WorkerId, request_id: RequestId, *, tokens: int, share: float, now: float
    ) -> None:
        """A worker gets a prompt.

        Args:
            worker_id: who.
            request_id: whose.
            tokens: its length.
            share: of the worker's time that readers leave to prompts, above 0.
            now: seconds on the driver's clock.
        """
        queue = self._queues.setdefault(worker_id, _Queue())
        if not queue.foreseen_s:
            queue.since = now
        queue.foreseen_s[request_id] = self._foreseen_s(tokens) / share

    def computed(self, worker_id: WorkerId, request_id: RequestId, *, now: float) -> None:
        """A prompt is computed; nothing happens if nobody knows of it."""
        queue = self._queues.get(worker_id)
        foreseen_s = None if queue is None else queue.foreseen_s.pop(request_id, None)
        if queue is None or foreseen_s is None:
            return
        self._prompts.learn(seen_s=now - queue.since, foreseen_s=foreseen_s)
        queue.since = now

    def landed(self, *, tokens: int, took_s: float) -> None:
        """The first token of a prompt that was handed over has come."""
        self._handovers.learn(seen_s=took_s, foreseen_s=self._link.landing_s(tokens))

    def _foreseen_s(self, tokens: int) -> float:
        if self._latency is None:
            return NOMINAL_TOKEN_S * tokens
        return prefill_s(0, tokens, self._latency)
