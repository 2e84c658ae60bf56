"""The solver of draft lengths against a search through all of them."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.planning.speculation import (
    DraftPlan,
    PaceClass,
    TokensWithin,
    plan_drafts,
    planned,
    tokens_per_verification,
)

CLASSES = st.lists(
    st.builds(
        PaceClass,
        token_s=st.sampled_from([0.02, 0.03, 0.05, 0.1, 0.2]),
        requests=st.integers(0, 120),
    ),
    min_size=1,
    max_size=3,
).filter(lambda classes: any(each.requests for each in classes))


def engine(token_s: float, step_s: float, base_s: float) -> TokensWithin:
    """Tokens cost linearly, each drafting step its time; below nothing fits nothing."""

    def within(seconds: float, steps: int) -> int:
        return max(0, int((seconds - base_s - step_s * steps) / token_s))

    return within


def exhaustive(
    classes: list[PaceClass], acceptance: float, within: TokensWithin, most: int
) -> DraftPlan:
    """All lengths, each at the longest iteration that they bear."""
    found = []
    for lengths in itertools.product(range(1, most + 1), repeat=len(classes)):
        iteration_s = min(
            each.token_s * tokens_per_verification(n, acceptance=acceptance)
            for n, each in zip(lengths, classes, strict=True)
            if each.requests
        )
        found.append(planned(classes, lengths, iteration_s=iteration_s, tokens_within=within))
    return max(found, key=lambda plan: plan.prompt_tok_s)


@settings(max_examples=150, deadline=None)
@given(
    classes=CLASSES,
    acceptance=st.sampled_from([0.0, 0.3, 0.6, 0.8, 1.0]),
    step_s=st.sampled_from([0.0, 1e-3, 8e-3]),
    base_s=st.sampled_from([0.0, 5e-3, 2.5e-2]),
    most=st.integers(1, 10),
)
def test_no_lengths_leave_more_prompt_tokens(
    classes: list[PaceClass], acceptance: float, step_s: float, base_s: float, most: int
) -> None:
    within = engine(1e-4, step_s, base_s)
    found = plan_drafts(classes, acceptance=acceptance, tokens_within=within, draft_tokens_max=most)
    best = exhaustive(classes, acceptance, within, most)
    # Two ways to sum the same time may lie on both sides of a whole token.
    assert found.prompt_tokens >= (best.prompt_tok_s * found.iteration_s) - 1 - 1e-6
    assert len(found.draft_tokens) == len(classes)
    assert all(1 <= n <= most for n in found.draft_tokens)
    for n, each in zip(found.draft_tokens, classes, strict=True):  # all keep their pace
        tokens = tokens_per_verification(n, acceptance=acceptance)
        assert not each.requests or found.iteration_s <= each.token_s * tokens * (1 + 1e-9)


@pytest.mark.parametrize("acceptance", [0.0, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_tokens_of_a_verification_are_the_mean_of_draws(length: int, acceptance: float) -> None:
    draw, runs = random.Random(f"{length}/{acceptance}"), 20_000
    made = 0
    for _ in range(runs):
        made += 1
        for _ in range(length - 1):
            if draw.random() >= acceptance:
                break
            made += 1
    expected = tokens_per_verification(length, acceptance=acceptance)
    assert made / runs == pytest.approx(expected, abs=0.05)


def test_drafts_pay_where_a_draft_is_cheap_and_not_where_it_is_dear() -> None:
    classes = [PaceClass(token_s=0.05, requests=10)]
    cheap = plan_drafts(classes, acceptance=0.6, tokens_within=engine(7e-5, 1e-3, 0.025))
    dear = plan_drafts(classes, acceptance=0.6, tokens_within=engine(7e-5, 0.05, 0.025))
    assert cheap.draft_tokens[0] > 1
    assert dear.draft_tokens == (1,)


def test_those_who_read_slowly_need_shorter_drafts() -> None:
    classes = [PaceClass(token_s=0.02, requests=20), PaceClass(token_s=0.2, requests=20)]
    found = plan_drafts(classes, acceptance=0.8, tokens_within=engine(7e-5, 5e-4, 0.01))
    assert found.draft_tokens[0] > found.draft_tokens[1] == 1


@pytest.mark.parametrize(
    ("classes", "most", "message"),
    [
        ([], 10, "at least one request"),
        ([PaceClass(token_s=0.1, requests=0)], 10, "at least one request"),
        ([PaceClass(token_s=0.1, requests=1)], 0, "draft_tokens_max"),
    ],
)
def test_what_cannot_be_planned_is_said(classes: list[PaceClass], most: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_drafts(
            classes, acceptance=0.5, tokens_within=engine(1e-4, 0, 0), draft_tokens_max=most
        )
