"""vLLM's requests as the pure planner sees them, each with its reader's clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from readahead.core.planning.sequence import Sequence
from readahead.core.promise import Promise, PromiseClock, PromisedStage, Verdict
from readahead.core.reading.clock import ReadingClock
from readahead.core.request import RequestId
from readahead.services.engine.vllm_slack import ReaderNews, Slot

LEG_KEY = "readahead"
"""In SamplingParams.extra_args: what `leg_facts` makes."""
PACE_TOK_S = 5.0
"""Of a reader nobody said anything of."""


def leg_facts(
    *,
    pace_tok_s: float | None,
    arrived_at: float,
    slot: Slot | None,
    promise: Promise | None = None,
    verdict: Verdict = Verdict.NEW,
) -> dict[str, Any]:
    """What a leg's submission tells the engine core of its reader and its promise; msgpack types.

    `arrived_at` is on the machine's monotonic clock, which its processes share.
    """
    facts: dict[str, Any] = {"arrived_at": arrived_at}
    if pace_tok_s is not None:
        facts["pace_tok_s"] = pace_tok_s
    if slot is not None:
        facts["slot"] = [slot.number, slot.epoch]
    if promise is not None:
        facts["first_token_s"] = promise.first_token_s
        facts["stages"] = [
            [stage.token_s, stage.tokens, stage.until_token_id] for stage in promise.stages
        ]
    if verdict is not Verdict.NEW:
        facts["verdict"] = verdict.value
    return facts


def _promise_of(facts: Mapping[str, Any]) -> Promise | None:
    """As `leg_facts` told it."""
    stages = facts.get("stages")
    if not stages:
        return None
    return Promise(
        first_token_s=float(facts["first_token_s"]),
        stages=tuple(
            PromisedStage(token_s=token_s, tokens=tokens, until_token_id=until_token_id)
            for token_s, tokens, until_token_id in stages
        ),
    )


@dataclass(slots=True, eq=False, kw_only=True)
class EngineSequence(Sequence):
    """A request of vLLM's, and its reader."""

    request: Any
    clock: ReadingClock
    """Runs on the reader's side: he gets a token a delivery lag after it is made."""
    slot: Slot | None
    heard_at: float
    """Until when its tokens are counted in the clock."""
    promise: PromiseClock | None = None
    """Runs on the reader's side too. With one it is what policies see."""
    told: Verdict = Verdict.NEW
    """The verdict that the front end knows."""

    def hear(self, made: int, now: float, lag_s: float) -> None:
        """Gives the reader the tokens made since the last call, as if they had come evenly.

        Of evenly spaced tokens only the first and the last can be the one that he waits for.
        """
        clock, promise = self.clock, self.promise
        before = clock.delivered
        new = made - before
        first_at = now
        if new > 1:
            first_at = self.heard_at + (now - self.heard_at) / new
            clock.deliver(new - 1, now=first_at + lag_s)
        clock.deliver(min(new, 1), now=now + lag_s)
        self.heard_at = now
        if promise is None:
            self.reads_until = clock.deadline_s - lag_s
            return
        ids = self.request._output_token_ids[before:made] if promise.wants_ids else ()
        promise.deliver(new - 1, now=first_at + lag_s, token_ids=ids)
        promise.deliver(min(new, 1), now=now + lag_s, token_ids=ids[-1:])
        self.plan_by(promise, lag_s=lag_s)

    def learn(self, news: ReaderNews, lag_s: float) -> None:
        """Corrects the clock by what the reader, or whoever watches him, says."""
        clock = self.clock
        if news.pace_tok_s > 0:
            clock.change_pace(news.pace_tok_s, now=news.at_s)
        if news.tokens_read >= 0:
            clock.acknowledge(news.tokens_read, now=news.at_s)
        if self.promise is None:
            self.pace_tok_s = clock.pace_tok_s
            self.reads_until = clock.deadline_s - lag_s


class Sequences:
    """Keeps a sequence for each request, from its arrival to its end."""

    def __init__(self, *, block_tokens: int, lag_s: float) -> None:
        self._block_tokens = block_tokens
        self._lag_s = lag_s
        self._of: dict[Any, EngineSequence] = {}
        self._by_slot: dict[int, EngineSequence] = {}

    def __len__(self) -> int:
        return len(self._of)

    def add(self, request: Any, *, now: float, cached_tokens: int) -> None:
        """A request arrives. One without facts, from whoever calls vLLM itself, arrives now."""
        extra = getattr(request.sampling_params, "extra_args", None) or {}
        facts = extra.get(LEG_KEY) or {}
        transfer = request.kv_transfer_params or {}
        pace_tok_s = float(facts.get("pace_tok_s", PACE_TOK_S))
        arrived_at = float(facts.get("arrived_at", now))
        place = facts.get("slot")
        slot = None if place is None else Slot(number=place[0], epoch=place[1])
        promise, verdict = _promise_of(facts), Verdict(facts.get("verdict", Verdict.NEW))
        clock = ReadingClock(pace_tok_s=pace_tok_s, commit_s=arrived_at)
        sequence = EngineSequence(
            request_id=RequestId(request.request_id),
            prompt_tokens=request.num_prompt_tokens,
            output_tokens_max=request.max_tokens,
            arrived_at=arrived_at,
            pace_tok_s=pace_tok_s,
            reads_until=clock.deadline_s - self._lag_s,
            cached_tokens=min(cached_tokens, request.num_prompt_tokens - 1),
            is_pulled=bool(transfer.get("do_remote_prefill")),
            is_prefill_only=bool(transfer.get("do_remote_decode")),
            request=request,
            clock=clock,
            slot=slot,
            heard_at=arrived_at,
            promise=None if promise is None else PromiseClock(promise, arrived_at=arrived_at),
            verdict=verdict,
            told=verdict,
        )
        if sequence.promise is not None:
            sequence.plan_by(sequence.promise, lag_s=self._lag_s)
        self._of[request] = sequence
        if slot is not None:
            self._by_slot[slot.number] = sequence

    def remove(self, request: Any) -> None:
        """A request has ended. Unknown ones are ignored."""
        sequence = self._of.pop(request, None)
        if sequence is None:
            return
        sequence.is_ended = True
        sequence.blocks = 0
        if sequence.slot is not None and self._by_slot.get(sequence.slot.number) is sequence:
            del self._by_slot[sequence.slot.number]

    def preempted(self, request: Any) -> None:
        """A request has lost its KV; until its tokens in flight have come, no view has it."""
        sequence = self._of[request]
        sequence.computed = sequence.blocks = 0
        sequence.is_pulled = sequence.is_copied = False  # it comes by recompute

    def moved(self, request: Any, now: float, *, is_copied: bool) -> None:
        """A request is parked, or resumes from that."""
        sequence = self._of[request]
        sequence.is_copied, sequence.moved_at = is_copied, now
        sequence.is_pulled = is_copied  # a copy may be gone when it resumes: then by recompute

    def learn(self, news: Iterable[ReaderNews]) -> None:
        """Takes news of readers; that of readers who are not here is dropped."""
        for each in news:
            sequence = self._by_slot.get(each.slot.number)
            if sequence is not None and sequence.slot == each.slot:
                sequence.learn(each, self._lag_s)

    def judged(self) -> list[tuple[Slot, Verdict]]:
        """Verdicts that are others than before, of those whom the front end follows."""
        found = []
        for sequence in self._by_slot.values():
            if sequence.told is not sequence.verdict:
                sequence.told = sequence.verdict
                assert sequence.slot is not None, sequence.request_id
                found.append((sequence.slot, sequence.verdict))
        return found

    def running(self, requests: Iterable[Any], now: float) -> list[EngineSequence]:
        """Running requests, brought up to date."""
        sequences_of, size, lag_s = self._of, self._block_tokens, self._lag_s
        sequences = [sequences_of[request] for request in requests]
        for sequence in sequences:
            request = sequence.request
            computed = request.num_computed_tokens
            sequence.computed = computed
            sequence.blocks = -(-computed // size) or 1
            # With asynchronous scheduling the last token is a placeholder while it is computed.
            sequence.generated = (
                len(request._all_token_ids)
                + request.num_output_placeholders
                - sequence.prompt_tokens
            )
            made = len(request._output_token_ids)
            if made != sequence.clock.delivered:
                sequence.hear(made, now, lag_s)
        return sequences

    def waiting(self, requests: Iterable[Any], now: float) -> list[EngineSequence]:
        """Requests without blocks, brought up to date: new ones, preempted and parked ones."""
        sequences = [self._of[request] for request in requests]
        for sequence in sequences:
            sequence.computed = sequence.blocks = 0
            request = sequence.request
            made = len(request._output_token_ids)
            sequence.generated = made
            if sequence.is_copied:
                sequence.is_pulled = True
            elif sequence.is_pulled:  # a pull is tried once
                sequence.is_pulled = bool(request.kv_transfer_params.get("do_remote_prefill"))
            if made != sequence.clock.delivered:
                sequence.hear(made, now, self._lag_s)
        return sequences
