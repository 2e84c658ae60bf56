"""The law of paces: for a timeline that is what it is, who reads more slowly waits less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from readahead.core.reading.benefit import DEFAULT_SHAPE, Form
from readahead.core.reading.curves import EPSILON_S
from readahead.core.reading.score import Ruler
from readahead.ruler.columns import idle_at_pace_s, penalties
from readahead.ruler.run import Floats, Run
from readahead.sim.experiments.windows import Window, cut


def monotonicity(run: Run, window: Window, paces_tok_s: Sequence[float]) -> dict[str, float]:
    """Compares each request's penalties at neighbouring paces, under all forms.

    `violations` counts those that are greater at the lower pace: there must be none.
    """
    seen = cut(run, window.end_s)
    seen = seen.where(seen.arrivals_s >= window.start_s)
    tokens = seen.tokens.astype(np.float64)
    comparisons = violations = 0
    before: dict[Form, Floats] = {}
    for pace_tok_s in sorted(paces_tok_s):
        idle_s = idle_at_pace_s(seen, Ruler(), pace_tok_s=pace_tok_s)
        paces = np.full(seen.requests, pace_tok_s)
        for form in Form:
            lost = penalties(form, idle_s, tokens=tokens, paces_tok_s=paces, shape=DEFAULT_SHAPE)
            if form in before:
                comparisons += seen.requests
                violations += int((before[form] > lost + EPSILON_S).sum())
            before[form] = lost
    return {"comparisons": comparisons, "violations": violations}
