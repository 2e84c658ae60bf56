"""Laws of benefit and smooth goodput."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_reader import GAPS_S, PACES_TOK_S, random_timeline, timeline

from readahead.core.reading.benefit import Form, abandon_threshold_tok_s, benefit, penalty
from readahead.core.reading.curves import Origin, ReadingCurve
from readahead.core.reading.idle import idle_s
from readahead.core.reading.score import Ruler, score
from readahead.core.reading.timeline import Outcome, Timeline, Window

FORMS = st.sampled_from(Form)
ANSWER_TOKENS = 100
ROUNDING = 1e-9


@given(FORMS, st.floats(0, 100), st.floats(0, 100), st.integers(0, 500), PACES_TOK_S)
def test_waiting_longer_never_pays(
    form: Form, one_s: float, other_s: float, tokens: int, pace_tok_s: float
) -> None:
    """Each form rises with idle time, from zero."""
    shorter_s, longer_s = sorted([one_s, other_s])
    less = penalty(form, shorter_s, tokens=tokens, pace_tok_s=pace_tok_s)
    more = penalty(form, longer_s, tokens=tokens, pace_tok_s=pace_tok_s)
    assert 0 <= less <= more
    assert penalty(form, 0.0, tokens=tokens, pace_tok_s=pace_tok_s) == 0


@settings(max_examples=300)
@given(FORMS, GAPS_S, PACES_TOK_S, st.data(), st.floats(0, 5))
def test_delay_never_raises_benefit(
    form: Form, gaps_s: list[float], pace_tok_s: float, data: st.DataObject, delay_s: float
) -> None:
    """In any form, with any token held back."""
    held = data.draw(st.integers(0, len(gaps_s) - 1))
    later = [gap_s + delay_s * (i == held) for i, gap_s in enumerate(gaps_s)]
    ruler = Ruler(form=form, pace_tok_s=pace_tok_s)
    curve = ReadingCurve(pace_tok_s=pace_tok_s)
    honest, delayed = timeline(gaps_s), timeline(later)
    gained = ruler.benefit(delayed, idle_s(delayed, curve))
    assert gained <= ruler.benefit(honest, idle_s(honest, curve))


def _run(random: Random) -> list[Timeline]:
    run = [replace(random_timeline(random), request_id=str(i)) for i in range(20)]
    return [
        replace(one, outcome=Outcome.CANCELLED) if random.random() < 0.3 else one for one in run
    ]


@settings(max_examples=60)
@given(FORMS, st.integers(0, 10**6), st.floats(0, 10), st.floats(0, 10))
def test_score_falls_with_alpha(form: Form, seed: int, one: float, other: float) -> None:
    """The more a wait weighs, the less a run is worth."""
    run = _run(Random(seed))
    light, heavy = (score(run, Ruler(form=form, alpha=a)) for a in sorted([one, other]))
    for name in ("smooth_goodput_tok_s", "smooth_goodput_censored_tok_s"):
        assert getattr(heavy, name) <= getattr(light, name) + ROUNDING


@settings(max_examples=60)
@given(FORMS, st.integers(0, 10**6), PACES_TOK_S, PACES_TOK_S, st.sampled_from(Origin))
def test_score_falls_with_pace(
    form: Form, seed: int, one: float, other: float, origin: Origin
) -> None:
    """On a frozen run, a faster reader gets no more out of it."""
    run = _run(Random(seed))
    slow, fast = (
        score(run, Ruler(form=form, pace_tok_s=v, origin=origin)) for v in sorted([one, other])
    )
    for name in (
        "smooth_goodput_tok_s",
        "smooth_goodput_censored_tok_s",
        "slo_attainment",
        "goodput_req_s",
        "goodput_tok_s",
    ):
        assert getattr(fast, name) <= getattr(slow, name) + ROUNDING


@given(FORMS, st.integers(0, 10**6))
def test_censored_never_exceeds_literal(form: Form, seed: int) -> None:
    """It only adds waits."""
    result = score(_run(Random(seed)), Ruler(form=form))
    assert result.smooth_goodput_censored_tok_s is not None
    assert result.smooth_goodput_tok_s is not None
    assert result.smooth_goodput_censored_tok_s <= result.smooth_goodput_tok_s + ROUNDING


def _best_stop(form: Form, rate_tok_s: float, *, alpha: float, pace_tok_s: float) -> int:
    """After how many tokens at this rate a system that wants benefit would stop."""
    curve = ReadingCurve(pace_tok_s=pace_tok_s)

    def worth(tokens: int) -> float:
        one = timeline([1 / rate_tok_s] * tokens)
        late_s = idle_s(one, curve)
        return benefit(form, late_s, tokens=tokens, pace_tok_s=pace_tok_s, alpha=alpha)

    return max(range(0, ANSWER_TOKENS + 1, 10), key=worth)


@pytest.mark.parametrize(
    ("form", "alpha", "pace_tok_s"),
    [
        (Form.F1, 2.5, 5.0),
        (Form.F1, 0.5, 5.0),
        (Form.F1, 10.0, 3.0),
        (Form.F2, 2.5, 5.0),
        (Form.F2, 0.5, 5.0),
        (Form.F2, 10.0, 3.0),
        (Form.F3, 2.5, 5.0),
    ],
)
def test_threshold_is_where_stopping_starts_to_pay(
    form: Form, alpha: float, pace_tok_s: float
) -> None:
    """g*, found by trying rates, within 5 % of the formula."""
    never, always = 0.05, pace_tok_s
    assert _best_stop(form, never, alpha=alpha, pace_tok_s=pace_tok_s) == 0
    assert _best_stop(form, always, alpha=alpha, pace_tok_s=pace_tok_s) == ANSWER_TOKENS
    while always - never > 0.001:
        rate_tok_s = (always + never) / 2
        if _best_stop(form, rate_tok_s, alpha=alpha, pace_tok_s=pace_tok_s) == ANSWER_TOKENS:
            always = rate_tok_s
        else:
            never = rate_tok_s
    formula = abandon_threshold_tok_s(form, alpha=alpha, pace_tok_s=pace_tok_s)
    assert always == pytest.approx(formula, rel=0.05)


@pytest.mark.parametrize(("form", "alpha"), [(Form.F0, 2.5), (Form.F3, 1.0), (Form.F4, 1.0)])
def test_forms_without_a_threshold_finish_long_answers(form: Form, alpha: float) -> None:
    """However slowly they come: the loss is at most the cap, or as much as was gained."""
    for rate_tok_s in (0.05, 0.5, 2.0):
        assert _best_stop(form, rate_tok_s, alpha=alpha, pace_tok_s=5.0) in (0, ANSWER_TOKENS)
        whole = timeline([1 / rate_tok_s] * ANSWER_TOKENS)
        ruler = Ruler(form=form, alpha=alpha)
        assert ruler.benefit(whole, idle_s(whole, ruler.curve(whole))) >= 0


@given(st.integers(0, 10**6))
def test_score_does_not_depend_on_the_clock(seed: int) -> None:
    """Shifted as a whole, a run scores the same."""
    run = _run(Random(seed))
    shifted = [
        replace(
            one, arrival_s=one.arrival_s + 64, token_times_s=[t + 64 for t in one.token_times_s]
        )
        for one in run
    ]
    before, after = score(run, Ruler()), score(shifted, Ruler())
    assert before.smooth_goodput_tok_s == pytest.approx(after.smooth_goodput_tok_s, abs=1e-9)
    assert before.user_idle_s is not None
    assert after.user_idle_s is not None
    assert before.user_idle_s.p99 == pytest.approx(after.user_idle_s.p99, abs=1e-9)


def test_an_empty_run_has_no_score() -> None:
    """Nothing is undefined by a crash."""
    empty = score([], Ruler())
    assert empty.requests == 0
    assert empty.smooth_goodput_tok_s is None
    assert empty.slo_attainment is None
    assert empty.user_idle_s is None


def test_a_longer_observation_charges_who_was_forgotten() -> None:
    """A request without an end waits until the observation ends."""
    hung = Timeline(request_id="r", arrival_s=0, token_times_s=[], outcome=Outcome.FAILED)
    for end_s in (10.0, 20.0):
        result = score([hung], Ruler(), observed=Window(start_s=0.0, end_s=end_s))
        assert result.user_idle_censored_s is not None
        assert result.user_idle_censored_s.mean == pytest.approx(end_s - 0.2)
