"""The two tricks do what is said of them, and are found in no honest run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.core.reading.curves import ReadingCurve, TtftTbt
from readahead.core.reading.idle import idle_s
from readahead.core.reading.score import Ruler, Score, score
from readahead.core.reading.timeline import Outcome, Timeline, window
from readahead.core.reading.tricks import find_tricks
from readahead.core.reading.tricks_policies import abandon, delay_output, missed_s
from readahead.core.reading.tricks_queue import ToyServer, ToyWorkload, simulate

SEEDS = range(12)
TBT = TtftTbt(ttft_s=2.0, tbt_s=0.1)
CURVE = ReadingCurve(pace_tok_s=10.0, offset_s=2.0)
READERS = ReadingCurve(pace_tok_s=5.0)


@cache
def run(seed: int, rate_req_s: float, prompt_tokens: int = 1000) -> tuple[Timeline, ...]:
    """A bursty run of the toy, promised a TBT of 100 ms."""
    workload = ToyWorkload(
        rate_req_s=rate_req_s, requests=60, prompt_tokens_median=prompt_tokens, seed=seed
    )
    return tuple(replace(one, slo=TBT) for one in simulate(workload, slo=CURVE))


def coalesced(timeline: Timeline, gap_s: float = 0.05) -> Timeline:
    """As the router sends while a reader has text left: no frame within 50 ms of the last."""
    times_s: list[float] = []
    framed_s = -1.0
    for at in timeline.token_times_s:
        framed_s = framed_s if at <= framed_s else max(at, framed_s + gap_s)
        times_s.append(framed_s)
    return replace(timeline, token_times_s=times_s, made_times_s=timeline.token_times_s)


def over_a_network(timeline: Timeline, rng: Random) -> Timeline:
    """In order, 30 ms and some jitter away, and now and then nothing comes for a second."""
    times_s: list[float] = []
    broken_until_s = 0.0
    for at in timeline.token_times_s:
        if rng.random() < 0.01:
            broken_until_s = at + rng.random()
        arrives_s = max(at + 0.03 + rng.expovariate(100), broken_until_s)
        times_s.append(max(arrives_s, times_s[-1]) if times_s else arrives_s)
    return replace(timeline, token_times_s=times_s, made_times_s=timeline.token_times_s)


def bare(timeline: Timeline) -> Timeline:
    """As a log without the times at which tokens existed."""
    return replace(timeline, made_times_s=None)


def of_tbt(timelines: list[Timeline]) -> Score:
    return score(timelines, Ruler(slo=TBT))


@pytest.mark.parametrize("seed", SEEDS)
def test_output_delay_improves_tbt_and_nobody_waits_less(seed: int) -> None:
    """TBT's p99 falls and its attainment rises by 5 % and more; no request's idle falls."""
    honest = list(run(seed, 1.5))
    delayed = [delay_output(one, tbt_s=TBT.tbt_s) for one in honest]
    before, after = of_tbt(honest), of_tbt(delayed)
    assert before.tbt_s is not None
    assert after.tbt_s is not None
    assert after.tbt_s.p99 <= 0.95 * before.tbt_s.p99
    assert (after.slo_attainment or 0) >= 1.05 * (before.slo_attainment or 0)
    for one, held in zip(honest, delayed, strict=True):
        assert idle_s(held, READERS) >= idle_s(one, READERS) - 1e-9
    observed = window(delayed)
    smooth = [score(each, Ruler(), observed=observed).smooth_goodput_tok_s or 0.0
              for each in (honest, delayed)]  # fmt: skip
    assert smooth[1] <= smooth[0] + 1e-9


TIMES = st.lists(st.floats(0, 2), min_size=1, max_size=60)


@given(TIMES, st.floats(0.01, 1), st.floats(0.5, 20))
def test_held_tokens_are_never_early_lost_or_out_of_order(
    gaps_s: list[float], tbt_s: float, pace_tok_s: float
) -> None:
    """Each token comes no earlier than made and a threshold after the one before; idle not less."""
    at, made = 0.0, []
    for gap in gaps_s:
        at += gap
        made.append(at)
    honest = Timeline(request_id="r", arrival_s=0.0, token_times_s=made)
    delayed = delay_output(honest, tbt_s=tbt_s)
    times_s = list(delayed.token_times_s)
    assert len(times_s) == len(made)
    assert all(t >= m for t, m in zip(times_s, made, strict=True))
    assert all(b - a >= tbt_s - 1e-9 for a, b in pairwise(times_s))
    curve = ReadingCurve(pace_tok_s=pace_tok_s)
    assert idle_s(delayed, curve) >= idle_s(honest, curve)


@pytest.mark.parametrize("has_made_times", [True, False], ids=["made times", "times alone"])
def test_output_delay_is_found(has_made_times: bool) -> None:
    """In 95 % and more of the requests in which tokens were held, over many runs."""
    played = found = 0
    for seed in SEEDS:
        for rate_req_s in (1.0, 2.0, 3.0):
            delayed = [delay_output(one, tbt_s=TBT.tbt_s) for one in run(seed, rate_req_s, 700)]
            long = {one.request_id for one in delayed if one.tokens >= 20}
            seen = delayed if has_made_times else [bare(one) for one in delayed]
            report = find_tricks(seen)
            played += len(long)
            found += len(long & {finding.request_id for finding in report.findings})
    assert found >= 0.95 * played


STEADY = {
    "bursty": ToyServer(),
    "slow": ToyServer(step_s=0.09, request_s=0.001),
    "crawling": ToyServer(step_s=0.4),
    "at the threshold": ToyServer(step_s=0.1, request_s=0.0, prompt_token_s=0.0),
    "just below it": ToyServer(step_s=0.09, request_s=0.0, prompt_token_s=0.00005),
}


@pytest.mark.parametrize("server", STEADY)
def test_no_honest_run_is_accused(server: str) -> None:
    """Bursty, slow, even in step with the threshold; framed or over a bad network; nothing."""
    for seed in SEEDS:
        workload = ToyWorkload(
            rate_req_s=0.4 if server == "crawling" else 1.2, requests=40, seed=seed
        )
        honest = [
            replace(one, slo=TBT) for one in simulate(workload, slo=CURVE, server=STEADY[server])
        ]
        rng = Random(seed)
        for delivered in (
            honest,
            [coalesced(one) for one in honest],
            [over_a_network(one, rng) for one in honest],
        ):
            for seen in (delivered, [bare(one) for one in delivered]):
                report = find_tricks(seen)
                assert not report.is_delaying, report.lines()
                assert not report.is_abandoning
                assert report.findings == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_abandonment_raises_goodput_past_saturation_and_is_found(seed: int) -> None:
    """Twice the goodput and more, and the report names everyone who was cut off or dropped."""
    workload = ToyWorkload(rate_req_s=7.0, requests=300, seed=seed)
    honest = simulate(workload, slo=CURVE)
    abandoning = simulate(workload, slo=CURVE, abandons=True)
    before, after = score(honest, Ruler()), score(abandoning, Ruler())
    assert (after.goodput_tok_s or 0) > 2 * (before.goodput_tok_s or 0)
    report = find_tricks(abandoning)
    ended = {one.request_id for one in abandoning if not one.ended_normally}
    assert report.is_abandoning
    assert {finding.request_id for finding in report.findings} == ended
    assert report.cut_off_requests > 0
    assert report.cut_off_requests + report.dropped_requests == len(ended)
    assert not find_tricks(honest).is_abandoning


def test_users_who_give_up_are_counted_and_nobody_is_accused() -> None:
    """They leave some seconds after the miss, or before it; an engine's crash is not a policy."""
    rng = Random("impatience")
    for seed in SEEDS:
        honest = simulate(ToyWorkload(rate_req_s=7.0, requests=200, seed=seed), slo=CURVE)
        seen = []
        for one in honest:
            missed = missed_s(one, CURVE)
            if missed is None:
                seen.append(one)
                continue
            left_s = missed + rng.expovariate(1 / 4)
            times_s = [at for at in one.token_times_s if at <= left_s]
            if len(times_s) < one.tokens:
                one = replace(one, token_times_s=times_s, made_times_s=None, ended_s=left_s,
                              outcome=Outcome.CANCELLED)  # fmt: skip
            seen.append(one)
        report = find_tricks(seen)
        assert not report.is_abandoning
        assert report.cut_off_requests + report.dropped_requests > 0
        crashed = [replace(one, outcome=Outcome.FAILED) for one in map(_abandoned, honest)]
        assert not find_tricks(crashed).is_abandoning


def _abandoned(timeline: Timeline) -> Timeline:
    return abandon(timeline, CURVE)


@given(TIMES, st.floats(0.5, 20), st.floats(0, 3))
def test_abandoning_keeps_what_came_in_time_and_no_more(
    gaps_s: list[float], pace_tok_s: float, offset_s: float
) -> None:
    """A request that keeps its promise is left alone; another ends at its miss, in time so far."""
    at, times_s = 0.0, []
    for gap in gaps_s:
        at += gap
        times_s.append(at)
    honest = Timeline(request_id="r", arrival_s=0.0, token_times_s=times_s)
    curve = ReadingCurve(pace_tok_s=pace_tok_s, offset_s=offset_s)
    ended = abandon(honest, curve)
    if curve.is_met(honest):
        assert ended is honest
    else:
        assert ended.outcome is (Outcome.CANCELLED if ended.tokens else Outcome.REJECTED)
        assert ended.tokens < honest.tokens
        assert all(
            t <= due + 1e-9
            for t, due in zip(ended.token_times_s, curve.due_times_s(ended), strict=True)
        )
        assert idle_s(ended, curve) <= 1e-9
        assert ended.ended_s is not None


def test_the_toy_is_deterministic_and_loses_nobody() -> None:
    """The same seed gives the same run; below saturation everybody gets all of his answer."""
    workload = ToyWorkload(rate_req_s=2.0, requests=100, seed=3)
    assert simulate(workload, slo=CURVE) == simulate(workload, slo=CURVE)
    served = simulate(workload, slo=CURVE)
    assert [one.tokens for one in served] == [tokens for _, _, tokens in workload.arrivals()]
    assert all(one.ended_normally for one in served)
    assert simulate(replace(workload, seed=4), slo=CURVE) != served
