"""What the router's core knows of each worker, as elastic roles need it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from readahead.core.cluster import Role
from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.ledger import Ledger
from readahead.core.live_request import LiveRequest
from readahead.core.messages import (
    Event,
    PrefillFinished,
    StepObserved,
    WorkerJoined,
    WorkerLost,
)
from readahead.core.placement.elastic import Site
from readahead.core.placement.prompt_times import PromptTimes
from readahead.core.pools import LiveWorker
from readahead.core.request import Leg, RequestId

READERS_SHARE_MAX = 0.9
"""Of a worker's time; prompts get the rest, however many read there."""

TRUST_S = 0.25
"""A report may be so old: until then its worker is taken to have gone on making text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Readers:
    """Those of one worker who have text."""

    slack_s: float
    """The least, as of the worker's report."""
    iteration_s: float
    """In which each of them gets a token."""
    share: float
    """Of the worker's time that they leave to prompts while they go on reading."""


class ElasticRoles:
    """Sees every prompt come and go, and says how soon each worker would have its first token.

    What other routers have on a worker is not known, but for its load.
    """

    def __init__(self, ledger: Ledger, *, latency: LatencyModel | None) -> None:
        """Watches the requests and workers of a ledger; iteration times as RouterState has them."""
        self._live, self._pools = ledger.live, ledger.pools
        self._ledger, self._latency = ledger, latency
        self._config = ledger.config.placement
        self._times = PromptTimes(ledger.config.migration, latency=latency)

    # What happens

    def expect(self, event: Event, now: float) -> None:
        """Any event, before the core takes note of it."""
        match event:
            case StepObserved():
                self._made(event, now)
            case PrefillFinished(request_id=request_id, attempt=attempt, worker_id=worker_id):
                if self._ledger.current(request_id, attempt, worker_id):
                    self._times.computed(worker_id, request_id, now=now)
            case WorkerLost(worker_id=worker_id, incarnation=incarnation):
                if self._pools.get(worker_id, incarnation):
                    self._times.forget(worker_id)
            case WorkerJoined(description=about):
                if not self._pools.get(about.worker_id, about.incarnation):
                    self._times.forget(about.worker_id)
            case _:
                pass

    def _made(self, event: StepObserved, now: float) -> None:
        """A prompt ends with its first token."""
        for made in event.made:
            request = self._live.get(made.request_id)
            if request is None or request.tokens_delivered or request.attempt != made.attempt:
                continue
            if request.leg is Leg.WHOLE:
                self._times.computed(event.worker_id, made.request_id, now=now)
                self._pools.keep_on(request)
            elif request.leg is Leg.DECODE and not request.failures:
                took_s = now - request.waits_since
                self._times.landed(tokens=request.prompt_tokens, took_s=took_s)

    def submitted(self, request: LiveRequest, now: float) -> None:
        """A leg, after the core took note of it."""
        worker = self._pools.get(request.worker_id)
        assert worker is not None, request
        if request.leg is Leg.DECODE:
            return
        self._forget_lost(worker)
        self._times.given(
            worker.worker_id,
            request.request_id,
            tokens=request.prompt_tokens,
            share=self._readers(worker, now).share,
            now=now,
        )

    # What is foreseen

    def sites(self, request: LiveRequest, now: float) -> Sequence[Site]:
        """Where its prompt can be computed, by worker. O(legs).

        A worker that refused a moment ago is left out: others need not wait for it.
        """
        usable = [w for w in self._pools if not w.is_draining and now >= w.rests_until]
        usable.sort(key=lambda each: each.worker_id)
        for worker in usable:
            self._forget_lost(worker)
        prefill = [each for each in usable if each.description.role is Role.PREFILL]
        found = [
            self._site(worker, request, now)
            for worker in usable
            if worker.description.role is Role.DECODE
            and worker.has_room(request.tokens_max, now=now)
            and (not prefill or self._has_kv(worker, request))
        ]
        is_full = not found
        for worker in prefill:
            found += self._prefill_sites(worker, request, now, is_full=is_full)
        return found

    def _prefill_sites(
        self, worker: LiveWorker, request: LiveRequest, now: float, *, is_full: bool
    ) -> list[Site]:
        """At a prefill worker; `is_full` says that no decode worker has room."""
        kept, tokens = self._site(worker, request, now), request.prompt_tokens
        handed_over = replace(
            kept,
            leg=Leg.PREFILL,
            has_room=worker.has_room(tokens, now=now),
            handover_s=self._times.handover_s(tokens),
        )
        longest_s = self._config.keep_queue_s
        keeps = longest_s > 0 and (is_full or kept.queue_s < longest_s)
        if keeps and worker.can_keep(tokens, now=now):
            return [handed_over, kept]
        return [handed_over]

    def _site(self, worker: LiveWorker, request: LiveRequest, now: float) -> Site:
        """Where it stays with its answer."""
        times, tokens = self._times, request.prompt_tokens
        readers = self._readers(worker, now)
        chunk_s = times.length_s(min(tokens, self._config.chunk_tokens)) + readers.iteration_s
        return Site(
            worker=worker.view(),
            leg=Leg.WHOLE,
            has_room=True,
            queue_s=times.queue_s(worker.worker_id, now=now),
            length_s=times.length_s(tokens) / readers.share,
            chunk_s=chunk_s,
            slack_s=readers.slack_s,
        )

    def _readers(self, worker: LiveWorker, now: float) -> _Readers:
        count, contexts, pace_tok_s, first_due = 0, 0, 0.0, math.inf
        for request_id in worker.legs:
            request = self._live[request_id]
            if not request.tokens_delivered:
                continue
            clock = request.clock
            count += 1
            contexts += request.prompt_tokens + request.tokens_delivered
            pace_tok_s += clock.pace_tok_s
            first_due = min(first_due, clock.deadline_s)
        if not count:
            return _Readers(slack_s=math.inf, iteration_s=0.0, share=1.0)
        took_s = self._iteration_s(worker, count, contexts)
        needed = min(READERS_SHARE_MAX, pace_tok_s / count * took_s)
        seen_at = max(worker.observed_at, now - TRUST_S)
        return _Readers(slack_s=first_due - seen_at, iteration_s=took_s, share=1 - needed)

    def _iteration_s(self, worker: LiveWorker, requests: int, contexts: int) -> float:
        if self._latency is None:
            return worker.token_s
        work = IterationWork(
            tokens=requests, requests=requests, past_tokens=contexts, prefill_pairs=0
        )
        return iteration_s(work, model=self._latency)

    def _has_kv(self, worker: LiveWorker, request: LiveRequest) -> bool:
        """Its memory has room for the prompt now, beside those that it has not begun."""
        free_tokens = worker.load.kv_blocks_free * worker.description.block_tokens
        due_tokens = sum(self._live[each].prompt_tokens for each in self._prompts(worker))
        return due_tokens + request.prompt_tokens <= free_tokens

    def _prompts(self, worker: LiveWorker) -> list[RequestId]:
        return [
            each
            for each in self._times.prompts(worker.worker_id)
            if each in worker.legs and not self._live[each].tokens_delivered
        ]

    def _forget_lost(self, worker: LiveWorker) -> None:
        self._times.keep(worker.worker_id, self._prompts(worker))
