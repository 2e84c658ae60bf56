"""PB*: the budget for prompts never promises more than batches hold, and knows its laws."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slos_instances import LINEAR, ROOFLINE

from readahead.core.latency.budget import tokens_within
from readahead.core.latency.iteration import Curve, IterationWork, LatencyModel
from readahead.core.planning.slos.prefill_budget import PrefillBudget
from readahead.core.planning.slos.tiers import Drafts, Load, Prompt, Segment
from readahead.core.request import RequestId

TIERS = (0.05, 0.1, 0.2)
CONTEXT_TOKENS = 500
TILED = LatencyModel(
    name="tiles",
    planes=ROOFLINE.planes,
    time_scale=1.2,
    tile_s=Curve(sizes=(1, 256, 257, 1024), values=(0.0, -1e-3, 2e-3, 0.0)),
    kv_weight=Curve(sizes=(1, 16, 64), values=(1.0, 1.4, 0.9)),
)
MODELS = (LINEAR, ROOFLINE, TILED)
COUNTS = st.tuples(*[st.integers(0, 40)] * len(TIERS))


def made(model: LatencyModel, drafts: Drafts | None = None) -> PrefillBudget:
    return PrefillBudget(model, TIERS, context_tokens=CONTEXT_TOKENS, drafts=drafts)


def computed_tokens(segment: Segment, model: LatencyModel) -> int:
    """Of one endless prompt, in batches that hold the decodes spread evenly."""
    done = served = 0
    wanted = sum(
        count * -(-segment.batches // max(1, int(tier / segment.batch_s + 1e-9)))
        for tier, count in zip(TIERS, segment.counts, strict=True)
    )
    for batch in range(1, segment.batches + 1):
        decodes = -(-batch * wanted // segment.batches) - served
        served += decodes
        work = IterationWork(
            tokens=decodes,
            requests=decodes,
            past_tokens=decodes * CONTEXT_TOKENS,
            prefill_pairs=0,
        )
        done += tokens_within(segment.batch_s, model=model, work=work, before_tokens=done)
    return done


@settings(max_examples=300, deadline=None, derandomize=True)
@given(model=st.sampled_from(MODELS), counts=COUNTS, span_s=st.floats(0.01, 1.5))
def test_batches_hold_what_the_line_promises(
    model: LatencyModel, counts: tuple[int, ...], span_s: float
) -> None:
    """A prompt that takes the whole budget is computed when the interval ends."""
    budget = made(model)
    room = budget.line(counts).tokens(span_s)
    tokens = max((n for n in range(0, 20_000, 50) if demand(budget, n) <= room), default=0)
    done = computed_tokens(budget.segment(counts, 0.0, span_s), model)
    assert tokens == 0 or done >= tokens


def demand(budget: PrefillBudget, tokens: int) -> float:
    if tokens == 0:
        return 0.0
    return budget.demand_tokens(
        Prompt(request_id=RequestId("p"), due_s=1, prompt_tokens=tokens, blocks=0, tier=0)
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(model=st.sampled_from(MODELS), counts=COUNTS, tier=st.integers(0, 2))
def test_one_more_that_decodes_never_adds_budget(
    model: LatencyModel, counts: tuple[int, ...], tier: int
) -> None:
    """Neither tokens per second nor a smaller cut: all else rests on it."""
    budget = made(model)
    more = tuple(count + (index == tier) for index, count in enumerate(counts))
    line, after = budget.line(counts), budget.line(more)
    assert after.tokens_per_s <= line.tokens_per_s
    assert after.cut_tokens >= line.cut_tokens
    assert after.batch_s <= TIERS[tier]


def test_looser_tiers_have_larger_batches() -> None:
    """More than 512 tokens fit where every tier is 100 ms or more; one fast reader ends that."""
    budget = made(LINEAR)
    loose, joined = budget.line((0, 20, 20)), budget.line((1, 20, 20))
    assert loose.tokens_per_s * loose.batch_s > 512 > joined.tokens_per_s * joined.batch_s


def test_the_line_is_not_far_below_what_batches_hold() -> None:
    """At most 15 % over intervals of half a second to two; the cut is most of it."""
    draw, promised, held = random.Random("far"), 0.0, 0
    for _ in range(200):
        counts = tuple(draw.randint(0, 30) for _ in TIERS)
        span_s = draw.uniform(0.5, 2.0)
        budget = made(LINEAR)
        promised += budget.line(counts).tokens(span_s)
        held += computed_tokens(budget.segment(counts, 0.0, span_s), LINEAR)
    assert 0.85 * held < promised <= held


@pytest.mark.parametrize(("decoding", "least"), [(10, 1.3), (100, 1.2)])
def test_drafts_add_budget_for_a_tight_tier(decoding: int, least: float) -> None:
    """As the source finds for 50 ms, a draft model whose steps cost next to nothing, and 0.6."""
    plain, drafted = made(LINEAR), made(LINEAR, Drafts(acceptance=0.6))
    counts = (decoding, 0, 0)
    assert drafted.line(counts).draft_tokens is not None
    assert drafted.line(counts).tokens_per_s > least * plain.line(counts).tokens_per_s


@settings(max_examples=25, deadline=None, derandomize=True)
@given(counts=COUNTS, acceptance=st.sampled_from([0.3, 0.6, 0.9]))
def test_no_draft_lengths_leave_more(counts: tuple[int, ...], acceptance: float) -> None:
    """All lengths are tried, each with the longest batch that keeps every pace."""
    drafted = made(LINEAR, Drafts(acceptance=acceptance, draft_tokens_max=6))
    most = made(LINEAR).line(counts).tokens_per_s
    for lengths in itertools.product(*(range(1, 7) if count else [1] for count in counts)):
        used = [each for each in zip(lengths, TIERS, counts, strict=True) if each[2]]
        if not used:
            continue
        batch_s = min(tier * sum(acceptance**k for k in range(n)) for n, tier, _ in used)
        busy_s = drafted.base_s + (max(n for n, _, _ in used) - 1) * drafted.draft_step_s
        busy_s += sum(c * (drafted.decode_s + (n - 1) * drafted.verify_s) for n, _, c in used)
        most = max(most, (1 - busy_s / batch_s) / drafted.token_s(batch_s))
    assert drafted.line(counts).tokens_per_s == pytest.approx(most)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(model=st.sampled_from(MODELS), counts=COUNTS, tier=st.integers(0, 2))
def test_with_drafts_one_more_never_adds_tokens_per_second(
    model: LatencyModel, counts: tuple[int, ...], tier: int
) -> None:
    budget = made(model, Drafts(acceptance=0.7))
    more = tuple(count + (index == tier) for index, count in enumerate(counts))
    assert budget.line(more).tokens_per_s <= budget.line(counts).tokens_per_s


@pytest.mark.parametrize(
    ("tiers", "decoding", "message"),
    [
        ((), (), "ascend"),
        ((0.1, 0.05), (1, 1), "ascend"),
        ((0.0, 0.1), (1, 1), "ascend"),
        ((0.1,), (1, 1), "a count for each tier"),
        ((0.1,), (-1,), "a count for each tier"),
    ],
)
def test_what_is_no_load_is_refused(
    tiers: tuple[float, ...], decoding: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Load(tiers=tiers, decoding=decoding, blocks_free=0, context_tokens=0)
