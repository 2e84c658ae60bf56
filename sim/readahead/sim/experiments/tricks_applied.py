"""The tricks on the timelines of a simulated run, by core's own functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from readahead.core.reading.benefit import DEFAULT_SHAPE, Form
from readahead.core.reading.curves import EPSILON_S
from readahead.core.reading.percentiles import percentile
from readahead.core.reading.score import Ruler, request_score
from readahead.core.reading.timeline import Timeline
from readahead.core.reading.tricks import find_tricks
from readahead.core.reading.tricks_delay import HELD_SHARE_MIN, HELD_TOKENS_MIN, LATE_S_MIN
from readahead.core.reading.tricks_policies import delay_output
from readahead.ruler.columns import penalties
from readahead.ruler.matrices import matrices
from readahead.ruler.run import Floats, Run
from readahead.sim.experiments.windows import Window, cut

TBT_S = 0.2
"""The threshold: the time that reading a token takes."""
REQUESTS_MAX = 300
"""Of each window: the delay is applied token by token."""


def delayed(run: Run, window: Window) -> dict[str, float | None]:
    """What the output delay does to requests of the window that finished in it."""
    honest = _finished(run, window)
    held = [delay_output(one, tbt_s=TBT_S) for one in honest]
    known = [replace(one, made_times_s=tuple(one.token_times_s)) for one in honest]
    ruler = Ruler()
    scores = [
        (request_score(a, ruler), request_score(b, ruler)) for a, b in zip(known, held, strict=True)
    ]
    found: dict[str, float | None] = {
        "delay_requests": len(honest),
        "delay_idle_improved": sum(b.idle_s < a.idle_s - EPSILON_S for a, b in scores),
        "delay_benefit_change": _mean([b.benefit - a.benefit for a, b in scores]),
        "delay_found_share": _recall(held),
        "honest_found_share": find_tricks(known).delayed_requests / max(1, len(known)),
    }
    for name, every in (("honest", honest), ("delayed", held)):
        gaps = [np.diff(one.token_times_s) for one in every if one.tokens > 1]
        largest = [float(each.max()) for each in gaps]
        found[f"{name}_tbt_p99_s"] = _p99(np.concatenate(gaps).tolist() if gaps else [])
        found[f"{name}_tbt_max_p99_s"] = _p99(largest)
        found[f"{name}_tbt_met"] = _mean([float(gap <= TBT_S + EPSILON_S) for gap in largest])
    found["honest_idle_mean_s"] = _mean([a.idle_s for a, _ in scores])
    found["delayed_idle_mean_s"] = _mean([b.idle_s for _, b in scores])
    return found


def stopping(
    run: Run, window: Window, *, forms: Sequence[Form], alpha: float
) -> dict[str, float | None]:
    """Shares of the window's finished answers that would score more if stopped at some token."""
    seen = cut(run, window.end_s)
    chosen = seen.where((seen.arrivals_s >= window.start_s) & seen.ended_normally)
    better = dict.fromkeys(forms, 0)
    for matrix in matrices(chosen):
        pace = chosen.paces_tok_s[matrix.requests][:, np.newaxis]
        tokens = np.arange(1.0, matrix.times_s.shape[1] + 1)
        late_s = matrix.times_s - chosen.arrivals_s[matrix.requests][:, np.newaxis] - tokens / pace
        idle_s: Floats = np.maximum.accumulate(np.maximum(late_s, 0.0), axis=1)
        for form in forms:
            lost = penalties(
                form,
                idle_s,
                tokens=np.broadcast_to(tokens, idle_s.shape),
                paces_tok_s=np.broadcast_to(pace, idle_s.shape),
                shape=DEFAULT_SHAPE,
            )
            gained = np.where(matrix.is_token, tokens - alpha * lost, -np.inf)
            whole = gained[np.arange(len(gained)), matrix.lengths - 1]
            best = np.maximum(0.0, gained.max(axis=1))
            better[form] += int((best > whole + EPSILON_S).sum())
    count = max(1, chosen.requests)
    return {f"stop_share_{form.value.lower()}": better[form] / count for form in forms}


def _finished(run: Run, window: Window) -> list[Timeline]:
    seen = cut(run, window.end_s)
    is_chosen = (seen.arrivals_s >= window.start_s) & seen.ended_normally
    return [seen.timeline(int(place)) for place in np.flatnonzero(is_chosen)[:REQUESTS_MAX]]


def _recall(held: Sequence[Timeline]) -> float | None:
    """Share found of those that were held back long enough and often enough to be told."""
    told = [one for one in held if _is_held(one)]
    if not told:
        return None
    return find_tricks(told).delayed_requests / len(told)


def _is_held(one: Timeline) -> bool:
    made_s = one.made_times_s or ()
    late = sum(at - made > LATE_S_MIN for at, made in zip(one.token_times_s, made_s, strict=True))
    return late >= max(HELD_TOKENS_MIN, HELD_SHARE_MIN * one.tokens)


def _p99(values: Sequence[float]) -> float | None:
    return percentile(sorted(values), 0.99) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
