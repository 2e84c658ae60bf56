"""A decode worker as a migration policy sees it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from readahead.core.cluster import WorkerView
from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.request import RequestView


class Decoder:
    """What the worker has, foreseen: the moves under way, and those chosen in this look, count as
    done. What other routers have there is known from its reported load alone."""

    def __init__(
        self,
        worker: WorkerView,
        *,
        legs: Sequence[RequestView],
        arrivals: Sequence[RequestView] = (),
        is_resting: bool = False,
        latency: LatencyModel | None = None,
    ) -> None:
        """Looks at one worker.

        Args:
            worker: as of now.
            legs: what it runs for this router, whether that is on the move away or not.
            arrivals: what is on the move to it.
            is_resting: it has refused something a moment ago.
            latency: its iteration times; None: as observed.
        """
        about = worker.description
        self.worker = worker
        self.worker_id = about.worker_id
        self._is_resting, self._latency = is_resting, latency
        self._kv_tokens = about.kv_blocks * about.block_tokens
        used = (about.kv_blocks - worker.load.kv_blocks_free) * about.block_tokens
        self._tokens_now = max(used, _contexts(legs))
        self._requests_now = max(worker.load.running + worker.load.waiting, len(legs))
        leaving = [each for each in legs if each.is_leaving]
        self._readers = {each.request_id: each for each in legs if not each.is_leaving}
        self._readers.update((each.request_id, each) for each in arrivals)
        self._tokens = self._tokens_now + _contexts(arrivals) - _contexts(leaving)
        self._requests = self._requests_now + len(arrivals) - len(leaving)
        self._seats = worker.legs
        self.moves = len(arrivals) + len(leaving)
        """Of which it is part now."""

    @property
    def readers(self) -> Iterable[RequestView]:
        """This router's requests that will be here."""
        return self._readers.values()

    @property
    def is_draining(self) -> bool:
        """It is to be emptied."""
        return self.worker.is_draining

    def can_take(self, request: RequestView, *, kv_share_max: float) -> bool:
        """It has a seat, and its memory would not be fuller than this."""
        if self.is_draining or self._is_resting or self.worker.load.waiting:
            return False
        tokens = self._tokens + request.context_tokens
        has_room = tokens <= kv_share_max * self._kv_tokens
        return has_room and self._seats < self.worker.description.requests_max

    def freeness_tokens(
        self, *, joins: RequestView | None = None, leaves: RequestView | None = None
    ) -> float:
        """Tokens that each request here can make until KV memory is full; -inf while it drains.

        Ref: [Llumnix] freeness (M - ΣV) / B.
        """
        if self.is_draining:
            return -math.inf
        tokens, requests = self._tokens, self._requests
        if joins is not None:
            tokens, requests = tokens + joins.context_tokens, requests + 1
        if leaves is not None:
            tokens, requests = tokens - leaves.context_tokens, requests - 1
        return (self._kv_tokens - tokens) / max(1, requests)

    def token_s(self, *, joins: RequestView | None = None) -> float:
        """Seconds between two tokens of a request here, foreseen; 0: not known.

        Without a latency model it is what was observed, however many come or go; with one, that
        is scaled by what the model says of the change.
        """
        observed_s = self.worker.token_s
        if self._latency is None:
            return observed_s
        tokens, requests = self._tokens, self._requests
        if joins is not None:
            tokens, requests = tokens + joins.context_tokens, requests + 1
        foreseen_s = self._iteration_s(requests, tokens)
        now_s = self._iteration_s(self._requests_now, self._tokens_now)
        if not observed_s or not now_s:
            return foreseen_s
        return observed_s * foreseen_s / now_s

    def give(self, request: RequestView) -> None:
        """A move away from here has been chosen."""
        del self._readers[request.request_id]
        self._tokens -= request.context_tokens
        self._requests -= 1
        self.moves += 1

    def take(self, request: RequestView) -> None:
        """A move to here has been chosen."""
        self._readers[request.request_id] = request
        self._tokens += request.context_tokens
        self._requests += 1
        self._seats += 1
        self.moves += 1

    def _iteration_s(self, requests: int, tokens: int) -> float:
        assert self._latency is not None
        work = IterationWork(
            tokens=requests, requests=requests, past_tokens=tokens, prefill_pairs=0
        )
        return iteration_s(work, model=self._latency)


def _contexts(requests: Iterable[RequestView]) -> int:
    return sum(each.context_tokens for each in requests)
