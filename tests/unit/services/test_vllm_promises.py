"""A promise inside the engine core, and the verdict on its way out, without vLLM."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.core.promise import Promise, PromiseClock, PromisedStage, Verdict
from readahead.services.engine.vllm_scheduler_belief import zero_load_of
from readahead.services.engine.vllm_scheduler_sequences import (
    EngineSequence,
    Sequences,
    leg_facts,
)
from readahead.services.engine.vllm_slack import ReaderNews, SlackBoard, SlackView, Slot

LAG_S = 0.5
THINK_END = 7
STAGES = (PromisedStage(token_s=0.125, until_token_id=THINK_END), PromisedStage(token_s=0.5))
THINKS = Promise(first_token_s=2.0, stages=STAGES)


@dataclass(slots=True)
class Params:
    extra_args: dict[str, Any]


@dataclass(slots=True, eq=False)
class MadeRequest:
    """The parts of vLLM's request that are read."""

    sampling_params: Params
    request_id: str = "r.1"
    num_prompt_tokens: int = 20
    num_computed_tokens: int = 20
    num_output_placeholders: int = 0
    max_tokens: int = 100
    kv_transfer_params: dict[str, Any] | None = None
    _output_token_ids: list[int] = field(default_factory=list)

    @property
    def _all_token_ids(self) -> list[int]:
        return [0] * self.num_prompt_tokens + self._output_token_ids

    def make(self, *token_ids: int) -> None:
        self._output_token_ids.extend(token_ids)
        self.num_computed_tokens = self.num_prompt_tokens + len(self._output_token_ids) - 1


def arrived(
    sequences: Sequences,
    *,
    promise: Promise | None = THINKS,
    slot: Slot | None = None,
    verdict: Verdict = Verdict.NEW,
) -> MadeRequest:
    facts = leg_facts(pace_tok_s=2.0, arrived_at=10.0, slot=slot, promise=promise, verdict=verdict)
    request = MadeRequest(Params({"readahead": facts}))
    sequences.add(request, now=10.5, cached_tokens=0)
    return request


def seen(sequences: Sequences, request: MadeRequest, now: float) -> EngineSequence:
    [sequence] = sequences.running([request], now)
    return sequence


def test_policies_see_the_promise_instead_of_the_reader() -> None:
    """Due when promised, a delivery lag earlier in the engine; stage by stage."""
    sequences = Sequences(block_tokens=16, lag_s=LAG_S)
    request = arrived(sequences)
    [sequence] = sequences.waiting([request], 10.5)
    assert (sequence.pace_tok_s, sequence.due_at) == (8.0, 12.0 - LAG_S)
    request.make(1)
    assert seen(sequences, request, 11.0).due_at == pytest.approx(12.125 - LAG_S)
    request.make(1, THINK_END, 1)
    sequence = seen(sequences, request, 11.2)
    assert sequence.due_at == pytest.approx(12.125 + 2 * 0.125 + 0.5 - LAG_S)
    assert sequence.pace_tok_s == 2.0


def test_what_the_reader_says_changes_nothing_of_a_promise() -> None:
    """But his own clock goes on, for one who was promised nothing."""
    sequences, slot = Sequences(block_tokens=16, lag_s=LAG_S), Slot(number=0, epoch=1)
    news = ReaderNews(slot=slot, pace_tok_s=9.0, tokens_read=1, at_s=11.0)
    for promise, is_moved in ((THINKS, False), (None, True)):
        request = arrived(sequences, promise=promise, slot=slot)
        request.make(1, 1, 1)
        before = seen(sequences, request, 11.0)
        due_at, pace_tok_s = before.due_at, before.pace_tok_s
        sequences.learn([news])
        after = seen(sequences, request, 11.0)
        assert (after.pace_tok_s != pace_tok_s) is is_moved
        assert (after.due_at != due_at) is is_moved
        sequences.remove(request)


@given(
    cut=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    thinking=st.integers(0, 30),
    gap_s=st.floats(0.01, 3),
)
def test_the_engine_is_due_as_its_router_is(cut: list[int], thinking: int, gap_s: float) -> None:
    """Where tokens come one step after the other; a lag later at the reader."""
    sequences = Sequences(block_tokens=16, lag_s=0.0)
    request = arrived(sequences)
    clock = PromiseClock(THINKS, arrived_at=10.0)
    ids = iter([1] * thinking + [THINK_END] + [1] * sum(cut))
    now = 10.5
    for tokens in cut:
        taken = list(itertools.islice(ids, tokens))
        for token_id in taken:
            now += gap_s
            clock.deliver(1, now=now, token_ids=[token_id])
            request.make(token_id)
            seen(sequences, request, now)
        sequence = seen(sequences, request, now)
        assert sequence.due_at == pytest.approx(clock.due_s)
        assert sequence.pace_tok_s == pytest.approx(1 / clock.token_s)


def test_a_verdict_is_told_once_and_only_where_it_is_news() -> None:
    """Through the board, to whoever has the slot now."""
    board = SlackBoard(2)
    view = SlackView(board.path)
    first, second = board.open_slot(), board.open_slot()
    assert first is not None
    assert second is not None
    slots = {"a": first, "b": second}
    sequences = Sequences(block_tokens=16, lag_s=LAG_S)
    a = seen(sequences, arrived(sequences, slot=first), 11.0)
    b = seen(sequences, arrived(sequences, slot=second, verdict=Verdict.BEST_EFFORT), 11.0)
    assert b.verdict is Verdict.BEST_EFFORT

    def told() -> list[tuple[str, Verdict]]:
        view.judge(sequences.judged())
        return board.verdicts(slots)

    assert told() == []
    a.verdict = Verdict.BEST_EFFORT
    assert told() == [("a", Verdict.BEST_EFFORT)]
    assert told() == []
    a.verdict = b.verdict = Verdict.ACCEPTED
    assert told() == [("a", Verdict.ACCEPTED), ("b", Verdict.ACCEPTED)]
    board.close_slot(first)
    slots["a"] = third = board.open_slot()  # type: ignore[assignment]  # it has just been freed
    assert third is not None
    a.verdict = Verdict.BEST_EFFORT  # by an engine core that has not heard of the end yet
    assert told() == []
    view.close()
    board.close()
    assert board.verdicts(slots) == []


def test_verdicts_leave_news_of_readers_alone() -> None:
    """They share a slot."""
    board = SlackBoard(1)
    view, slot = SlackView(board.path), board.open_slot()
    assert slot is not None
    news = ReaderNews(slot=slot, pace_tok_s=4.5, tokens_read=3, at_s=12.25)
    board.write(news)
    view.judge([(slot, Verdict.ACCEPTED)])
    assert view.changed() == [news]
    board.write(news)
    assert board.verdicts({0: slot}) == [(0, Verdict.ACCEPTED)]
    assert view.changed() == [news]
    view.close()
    board.close()


def test_an_engine_says_how_long_prompts_take_alone_where_it_knows() -> None:
    """By its profile, in the chunks that its batches allow."""
    limits = {"context_tokens_max": 6000, "batch_tokens_max": 512}
    assert zero_load_of("", **limits) is None
    curve = zero_load_of("llama-3.1-8b-a100-80g", **limits)
    later = zero_load_of(
        "llama-3.1-8b-a100-80g", context_tokens_max=6000, batch_tokens_max=512, delivery_lag_s=0.02
    )
    assert curve is not None
    assert later is not None
    assert later.at(1000) == pytest.approx(curve.at(1000) + 0.02)
    assert curve.sizes[0] == 1
    assert curve.sizes[-1] == 6000
    assert list(curve.values) == sorted(curve.values)
    whole = zero_load_of("llama-3.1-8b-a100-80g", context_tokens_max=6000, batch_tokens_max=8192)
    assert whole is not None
    assert curve.at(4096) > whole.at(4096)
