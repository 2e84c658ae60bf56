"""The rate below which a request scores more unserved: found by search, beside the formula."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.reading.benefit import (
    DEFAULT_PACE_TOK_S,
    Form,
    abandon_threshold_tok_s,
    benefit,
)
from readahead.core.reading.curves import ReadingCurve
from readahead.core.reading.idle import idle_s
from readahead.core.reading.timeline import Timeline

LENGTHS_TOKENS = (1000, 100)
HALVINGS = 40
SLOWEST_TOK_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """One form and one length of answer."""

    form: str
    tokens: int
    formula_tok_s: float | None
    """None: the form has no such rate."""
    found_tok_s: float
    """0: finishing always scores more."""

    @property
    def error(self) -> float:
        """Of what was found, as a share of the formula's."""
        return self.found_tok_s / self.formula_tok_s - 1 if self.formula_tok_s else 0.0


def thresholds(alpha: float) -> list[Threshold]:
    """All forms but those that are as good as no penalty."""
    return [
        Threshold(
            form=form.value,
            tokens=tokens,
            formula_tok_s=abandon_threshold_tok_s(form, alpha=alpha),
            found_tok_s=found_tok_s(form, tokens=tokens, alpha=alpha),
        )
        for form in (Form.F1, Form.F2, Form.F3, Form.F4)
        for tokens in LENGTHS_TOKENS
    ]


def found_tok_s(form: Form, *, tokens: int, alpha: float) -> float:
    """The rate at which serving all of the answer scores nothing, as serving nothing does."""
    low, high = SLOWEST_TOK_S, DEFAULT_PACE_TOK_S
    if _worth(form, low, tokens=tokens, alpha=alpha) >= 0:
        return 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _worth(form, middle, tokens=tokens, alpha=alpha) < 0:
            low = middle
        else:
            high = middle
    return high


def _worth(form: Form, rate_tok_s: float, *, tokens: int, alpha: float) -> float:
    times_s = [place / rate_tok_s for place in range(1, tokens + 1)]
    served = Timeline(request_id="even", arrival_s=0.0, token_times_s=times_s)
    waited_s = idle_s(served, ReadingCurve(pace_tok_s=DEFAULT_PACE_TOK_S))
    return benefit(form, waited_s, tokens=tokens, pace_tok_s=DEFAULT_PACE_TOK_S, alpha=alpha)
