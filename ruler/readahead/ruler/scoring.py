"""Scores a run: all metrics of core, of millions of tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from readahead.core.reading.benefit import Form
from readahead.core.reading.metrics.effective_throughput_tok_s import effective_throughput_tok_s
from readahead.core.reading.metrics.goodput_req_s import goodput_req_s
from readahead.core.reading.metrics.goodput_tok_s import goodput_tok_s
from readahead.core.reading.metrics.smooth_goodput_tok_s import smooth_goodput_tok_s
from readahead.core.reading.metrics.throughput_tok_s import throughput_tok_s
from readahead.core.reading.percentiles import Summary
from readahead.core.reading.score import Ruler, Score
from readahead.core.reading.timeline import Window
from readahead.core.reading.tricks import TricksReport, find_tricks
from readahead.ruler.columns import Columns, benefits, columns, gaps_s
from readahead.ruler.run import OUTCOMES, Floats, Run

PERCENTILES = (50.0, 90.0, 99.0)
"""Those of `Summary`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothGoodput:
    """The literal and the censored variant."""

    literal_tok_s: float | None
    censored_tok_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScore:
    """A run's score, and what is needed to explain it."""

    run: Run
    ruler: Ruler
    observed: Window
    score: Score
    each: Columns
    tricks: TricksReport
    by_form: Mapping[Form, SmoothGoodput]
    """Under the form asked for, and under F2."""
    more: Mapping[str, Mapping[str, float]]
    """Further percentiles of each distribution, as asked for: p95 and the like."""


def score_run(
    run: Run,
    ruler: Ruler,
    *,
    observed_until_s: float | None = None,
    percentiles: tuple[float, ...] = (),
) -> RunScore:
    """All metrics of a run, by default observed until the last moment that its log tells of."""
    observed = run.observed(observed_until_s)
    each = columns(run, ruler, observed_until_s=observed.end_s)
    duration_s = observed.duration_s
    forms = dict.fromkeys((ruler.form, Form.F2))
    by_form = {form: _both(ruler, each, form=form, duration_s=duration_s) for form in forms}
    distributions = _distributions(run, each)
    tokens = run.tokens
    attained = int(each.attained.sum())
    summaries = {name: _summary(values) for name, values in distributions.items()}
    score = Score(
        requests=run.requests,
        outcomes={OUTCOMES[i]: count for i, count in Counter(run.outcomes.tolist()).items()},
        tokens=len(run.times_s),
        duration_s=duration_s,
        smooth_goodput_tok_s=by_form[ruler.form].literal_tok_s,
        smooth_goodput_censored_tok_s=by_form[ruler.form].censored_tok_s,
        user_idle_s=summaries["user_idle_s"],
        user_idle_censored_s=summaries["user_idle_censored_s"],
        slo_attainment=attained / run.requests if run.requests else None,
        goodput_req_s=goodput_req_s([True] * attained, duration_s=duration_s),
        goodput_tok_s=goodput_tok_s([int(tokens[each.attained].sum())], duration_s=duration_s),
        throughput_tok_s=throughput_tok_s([len(run.times_s)], duration_s=duration_s),
        effective_throughput_tok_s=effective_throughput_tok_s(
            each.effective_tokens.tolist(), duration_s=duration_s
        ),
        ttft_s=summaries["ttft_s"],
        tbt_s=summaries["tbt_s"],
        tpot_s=summaries["tpot_s"],
        e2e_s=summaries["e2e_s"],
        andes_qoe=summaries["andes_qoe"],
        fluidity_index=summaries["fluidity_index"],
    )
    return RunScore(
        run=run,
        ruler=ruler,
        observed=observed,
        score=score,
        each=each,
        tricks=find_tricks(run.timelines(), slo=ruler.slo),
        by_form=by_form,
        more={name: _more(values, percentiles) for name, values in distributions.items()},
    )


def smooth_goodput_at(
    found: RunScore,
    *,
    alpha: float,
    is_censored: bool = False,
    idle_s: Floats | None = None,
    paces_tok_s: Floats | None = None,
) -> float | None:
    """Smooth goodput of a scored run, had its users read or minded waiting otherwise."""
    usual_s = found.each.idle_censored_s if is_censored else found.each.idle_s
    each = benefits(
        found.each,
        replace(found.ruler, alpha=alpha),
        usual_s if idle_s is None else idle_s,
        paces_tok_s=paces_tok_s,
    )
    return smooth_goodput_tok_s(each.tolist(), duration_s=found.observed.duration_s)


def _both(ruler: Ruler, each: Columns, *, form: Form, duration_s: float) -> SmoothGoodput:
    """Both variants under one form of f."""
    literal, censored = (
        benefits(each, ruler, idle_s, form=form) for idle_s in (each.idle_s, each.idle_censored_s)
    )
    return SmoothGoodput(
        literal_tok_s=smooth_goodput_tok_s(literal.tolist(), duration_s=duration_s),
        censored_tok_s=smooth_goodput_tok_s(censored.tolist(), duration_s=duration_s),
    )


def _distributions(run: Run, each: Columns) -> dict[str, Floats]:
    """Ascending values of each metric that has many."""
    found = {
        "user_idle_s": each.idle_s,
        "user_idle_censored_s": each.idle_censored_s,
        "ttft_s": each.ttft_s,
        "tbt_s": gaps_s(run),
        "tpot_s": each.tpot_s,
        "e2e_s": each.e2e_s,
        "andes_qoe": each.andes_qoe,
        "fluidity_index": each.fluidity_index,
    }
    return {name: np.sort(values[~np.isnan(values)]) for name, values in found.items()}


def _summary(ordered: Floats) -> Summary | None:
    if not len(ordered):
        return None
    p50, p90, p99 = (_percentile(ordered, percent) for percent in PERCENTILES)
    return Summary(count=len(ordered), mean=float(ordered.mean()), p50=p50, p90=p90, p99=p99)


def _more(ordered: Floats, percentiles: tuple[float, ...]) -> dict[str, float]:
    if not len(ordered):
        return {}
    return {f"p{percent:g}": _percentile(ordered, percent) for percent in percentiles}


def _percentile(ordered: Floats, percent: float) -> float:
    """The same interpolation as core's."""
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (place - below))
