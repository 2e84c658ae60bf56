"""A promise in the emulated engine: what its policy sees of a leg, token by token."""

from __future__ import annotations

import pytest

from readahead.core.promise import Promise, PromiseClock, PromisedStage, Verdict
from readahead.core.request import Leg, RequestId
from readahead.services.engine.emulated_leg import EmulatedLeg, sequence_of, stop_matcher_of
from readahead.services.engine.emulated_text import checksum, next_token
from readahead.services.engine.engine import LegRequest, Sampling

PROMPT = [1] * 8
TOKENS = 1000
"""Of the vocabulary."""


def thinks_until(token_id: int | None) -> Promise:
    thinking = PromisedStage(token_s=0.125, tokens=5, until_token_id=token_id)
    return Promise(first_token_s=2.0, stages=(thinking, PromisedStage(token_s=0.5)))


def leg(promise: Promise | None, *, verdict: Verdict = Verdict.NEW) -> EmulatedLeg:
    request = LegRequest(
        key=(RequestId("r"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=PROMPT,
        sampling=Sampling(max_tokens=50),
        pace_tok_s=4.0,
        arrived_at=10.0,
        promise=promise,
        verdict=verdict,
    )
    return EmulatedLeg(
        request=request,
        sequence=sequence_of(request, made=0, output_tokens_max=50, is_pulled=False, now=10.0),
        state=checksum(PROMPT),
        stop=stop_matcher_of(request),
        submitted_at=10.0,
        made_before=0,
    )


def second_token() -> int:
    """That an emulated engine makes of the prompt."""
    first = next_token(checksum(PROMPT), vocabulary_tokens=TOKENS)
    state = checksum([first], before=checksum(PROMPT))
    return next_token(state, vocabulary_tokens=TOKENS)


@pytest.mark.parametrize("token_id", [None, second_token()])
def test_the_sequence_is_due_as_promised(token_id: int | None) -> None:
    """From its arrival on, and after it has stopped and goes on as another sequence."""
    promise = thinks_until(token_id)
    found, clock = leg(promise, verdict=Verdict.BEST_EFFORT), PromiseClock(promise, arrived_at=10.0)
    thinking_tokens = 5 if token_id is None else 2
    for made in range(12):
        assert found.sequence.due_at == pytest.approx(clock.due_s)
        assert found.sequence.pace_tok_s == (8.0 if made < thinking_tokens else 2.0)
        found.sequence.generated += 1
        found.say_token(vocabulary_tokens=TOKENS, now=11.0 + made)
        clock.deliver(1, now=11.0 + made, token_ids=[token_id or 0] if made == 1 else [0])
        if made == 7:
            made_tokens = found.output_tokens
            again = sequence_of(
                found.request, made=made_tokens, output_tokens_max=50, is_pulled=False, now=99.0
            )
            found.go_on_as(again)
            assert again.verdict is Verdict.BEST_EFFORT


def test_without_a_promise_its_reader_says_when() -> None:
    """From when he asked, at his pace."""
    found = leg(None)
    assert (found.sequence.pace_tok_s, found.sequence.due_at) == (4.0, 10.25)
