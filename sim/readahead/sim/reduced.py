"""A run's score without its tokens: each request is reduced to what it adds, and forgotten."""

from __future__ import annotations

import math
from array import array
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from readahead.core.reading.curves import Slo
from readahead.core.reading.percentiles import Summary
from readahead.core.reading.score import Ruler, Score
from readahead.core.reading.timeline import Outcome
from readahead.ruler.columns import Columns, benefits, columns, gaps_s
from readahead.ruler.run import OUTCOMES
from readahead.sim.asked import EndedRequest
from readahead.sim.results import Gathered

CHUNK_REQUESTS = 256
"""Requests that are reduced together."""
BIN_RATIO = 1.01
"""Gaps between tokens are counted in bins this wide, so that their percentiles are within 1 %."""
GAP_S_MIN, GAP_S_MAX = 1e-6, 1e5

_COLUMNS = (
    "idle_s",
    "idle_censored_s",
    "ttft_s",
    "tpot_s",
    "e2e_s",
    "effective_tokens",
    "andes_qoe",
    "fluidity_index",
)


class Reduced:
    """Some 100 bytes a request, whatever its length.

    All numbers are those of `score_run` but two: percentiles of the gaps between tokens are
    within 1 %, and a request that broke off counts as observed until the chunk it is in is
    reduced, not until the end of the run.
    """

    def __init__(self, ruler: Ruler) -> None:
        self._ruler = ruler
        self._chunk = Gathered()
        self._values = {name: array("d") for name in _COLUMNS}
        self._outcomes: Counter[Outcome] = Counter()
        self._gaps: NDArray[np.int64] = np.zeros(_bin(np.array([GAP_S_MAX]))[0] + 1, dtype=np.int64)
        self._gap_sum_s = 0.0
        self._requests = self._tokens = self._attained = self._attained_tokens = 0
        self._benefit = self._benefit_censored = 0.0
        self._start_s, self._end_s = math.inf, -math.inf

    def add(self, request: EndedRequest, slo: Slo | None) -> None:
        """Takes one more."""
        self._chunk.add(request, slo)
        if len(self._chunk) >= CHUNK_REQUESTS:
            self._reduce()

    def score(self) -> Score:
        """Of all that were taken."""
        self._reduce()
        duration_s = max(0.0, self._end_s - self._start_s) if self._requests else 0.0

        def per_s(amount: float) -> float | None:
            return amount / duration_s if duration_s > 0 else None

        found = {name: _summary(values) for name, values in self._values.items()}
        return Score(
            requests=self._requests,
            outcomes=dict(self._outcomes),
            tokens=self._tokens,
            duration_s=duration_s,
            smooth_goodput_tok_s=per_s(self._benefit),
            smooth_goodput_censored_tok_s=per_s(self._benefit_censored),
            user_idle_s=found["idle_s"],
            user_idle_censored_s=found["idle_censored_s"],
            slo_attainment=self._attained / self._requests if self._requests else None,
            goodput_req_s=per_s(self._attained),
            goodput_tok_s=per_s(self._attained_tokens),
            throughput_tok_s=per_s(self._tokens),
            effective_throughput_tok_s=per_s(float(np.nansum(self._values["effective_tokens"]))),
            ttft_s=found["ttft_s"],
            tbt_s=self._gap_summary(),
            tpot_s=found["tpot_s"],
            e2e_s=found["e2e_s"],
            andes_qoe=found["andes_qoe"],
            fluidity_index=found["fluidity_index"],
        )

    def _reduce(self) -> None:
        if not len(self._chunk):
            return
        run, self._chunk = self._chunk.run(), Gathered()
        seen = run.observed()
        self._start_s = min(self._start_s, seen.start_s)
        self._end_s = max(self._end_s, seen.end_s)
        each = columns(run, self._ruler, observed_until_s=self._end_s)
        for name, values in self._values.items():
            values.frombytes(np.ascontiguousarray(getattr(each, name), dtype=np.float64).tobytes())
        tokens = run.tokens
        self._requests += run.requests
        self._tokens += int(tokens.sum())
        self._attained += int(each.attained.sum())
        self._attained_tokens += int(tokens[each.attained].sum())
        self._outcomes.update(OUTCOMES[index] for index in run.outcomes.tolist())
        self._benefit += self._worth(each, each.idle_s)
        self._benefit_censored += self._worth(each, each.idle_censored_s)
        gaps = gaps_s(run)
        self._gap_sum_s += float(gaps.sum())
        self._gaps += np.bincount(_bin(gaps), minlength=len(self._gaps))

    def _worth(self, each: Columns, idle_s: NDArray[np.float64]) -> float:
        return float(benefits(each, self._ruler, idle_s).sum())

    def _gap_summary(self) -> Summary | None:
        count = int(self._gaps.sum())
        if not count:
            return None
        upto = np.cumsum(self._gaps)

        def at(share: float) -> float:
            found = int(np.searchsorted(upto, share * (count - 1), side="right"))
            return 0.0 if not found else GAP_S_MIN * BIN_RATIO ** (found - 0.5)

        return Summary(
            count=count, mean=self._gap_sum_s / count, p50=at(0.5), p90=at(0.9), p99=at(0.99)
        )


def _bin(gaps_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin 0 is for gaps of about nothing."""
    clipped = np.clip(gaps_s, GAP_S_MIN, GAP_S_MAX)
    places: NDArray[np.int64] = np.ceil(
        np.log(clipped / GAP_S_MIN) / math.log(BIN_RATIO) - 1e-9
    ).astype(np.int64)
    return places


def _summary(values: array[float]) -> Summary | None:
    found = np.frombuffer(values) if values else np.empty(0)
    found = found[~np.isnan(found)]
    if not len(found):
        return None
    p50, p90, p99 = (float(value) for value in np.percentile(found, (50, 90, 99)))
    return Summary(count=len(found), mean=float(found.mean()), p50=p50, p90=p90, p99=p99)
