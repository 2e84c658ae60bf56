"""In words: what a score depends on."""

from __future__ import annotations

from typing import assert_never

import numpy as np

from readahead.core.reading.benefit import Form
from readahead.core.reading.curves import (
    EndToEnd,
    ReadingCurve,
    Slo,
    StagedCurve,
    TtftTbt,
    TtftTpot,
)
from readahead.core.reading.score import Ruler
from readahead.ruler.run import Run
from readahead.ruler.scoring import RunScore

FORMS = {
    Form.F0: "min(1, v·l/n)",
    Form.F1: "v·l",
    Form.F2: "l in seconds",
    Form.F3: "min(n, v·l)",
    Form.F4: "F·(1 - exp(-l/tau))",
    Form.F5: "v·max(0, l - tolerance)",
}


def slo_text(slo: Slo | None) -> str:
    """An objective; None is the reader's own curve."""
    match slo:
        case None:
            return "reading curve"
        case TtftTbt(ttft_s=ttft_s, tbt_s=tbt_s):
            return f"ttft={ttft_s:g},tbt={tbt_s:g}"
        case TtftTpot(ttft_s=ttft_s, tpot_s=tpot_s):
            return f"ttft={ttft_s:g},tpot={tpot_s:g}"
        case EndToEnd(e2e_s=e2e_s):
            return f"e2e={e2e_s:g}"
        case ReadingCurve(pace_tok_s=pace_tok_s, offset_s=offset_s):
            return f"pace={pace_tok_s:g},offset={offset_s:g}"
        case StagedCurve(ttft_s=ttft_s):
            return f"ttft={ttft_s:g}, staged"
        case _:
            assert_never(slo)


def promise_text(run: Run, ruler: Ruler) -> str:
    """What the requests of a run are held to."""
    if not run.slos:
        return slo_text(ruler.slo)
    own = "requests' own"
    return own if len(run.slos) == run.requests else f"{own}, else {slo_text(ruler.slo)}"


def pace_text(score: RunScore) -> str:
    """At which pace the users of a run read."""
    paces = score.each.paces_tok_s[score.each.has_reader]
    if not len(paces):
        return "nobody reads"
    low, high = float(np.min(paces)), float(np.max(paces))
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def ruler_text(ruler: Ruler) -> str:
    """The settings in one line."""
    return (
        f"benefit = n - alpha·f(l); f = {ruler.form.value}: {FORMS[ruler.form]}; "
        f"alpha = {ruler.alpha:g}, "
        f"pace {ruler.pace_tok_s:g} tok/s unless a request says, origin {ruler.origin.value}, "
        f"offset {ruler.offset_s:g} s"
    )
