"""What one user got out of a request: tokens, less a penalty for the waiting.

benefit = n - alpha * f(l), n tokens delivered, l seconds idle.

Ref: [SmoothGoodput] Eq. 10. The paper names f and does not write it down, so that there are
several; each number says which one it used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

DEFAULT_ALPHA = 2.5
"""Weight of idle time. Ref: [SmoothGoodput] experiments."""

DEFAULT_PACE_TOK_S = 5.0
"""Reading pace. Ref: [SmoothGoodput] experiments; 3 to 4 words a second."""


class Form(StrEnum):
    """How idle seconds l become a penalty f(l), at pace v, for an answer of n tokens."""

    F0 = "F0"
    """min(1, v l / n): a fraction of one token; hardly a penalty."""
    F1 = "F1"
    """v l: the tokens that could have been read meanwhile."""
    F2 = "F2"
    """l, in seconds."""
    F3 = "F3"
    """min(n, v l): at most the whole answer."""
    F4 = "F4"
    """F (1 - exp(-l / tau)): saturates at a constant."""
    F5 = "F5"
    """v max(0, l - tolerance): short waits are free."""


DEFAULT_FORM = Form.F1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The constants of forms F4 and F5."""

    cap_tokens: float = 50.0
    """F of F4: with tau, short waits cost at pace 5 what they cost under F1."""
    tau_s: float = 10.0
    """tau of F4: about how long people keep their attention on something that does not move."""
    tolerance_s: float = 1.0
    """Of F5: about how long a wait may be without breaking a train of thought."""

    def __post_init__(self) -> None:
        for name in ("cap_tokens", "tau_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and > 0, is {getattr(self, name)}")
        if not 0 <= self.tolerance_s < math.inf:
            raise ValueError(f"tolerance_s must be finite and >= 0, is {self.tolerance_s}")


DEFAULT_SHAPE = Shape()


def penalty(
    form: Form,
    idle_s: float,
    *,
    tokens: int,
    pace_tok_s: float,
    shape: Shape = DEFAULT_SHAPE,
) -> float:
    """f(l), before the weight alpha. In tokens, but F0 a fraction and F2 seconds."""
    match form:
        case Form.F0:
            if not tokens:
                return float(idle_s > 0)
            return min(1.0, pace_tok_s * idle_s / tokens)
        case Form.F1:
            return pace_tok_s * idle_s
        case Form.F2:
            return idle_s
        case Form.F3:
            return min(float(tokens), pace_tok_s * idle_s)
        case Form.F4:
            return -shape.cap_tokens * math.expm1(-idle_s / shape.tau_s)
        case Form.F5:
            return pace_tok_s * max(0.0, idle_s - shape.tolerance_s)
        case _:
            assert_never(form)


def benefit(
    form: Form,
    idle_s: float,
    *,
    tokens: int,
    pace_tok_s: float,
    alpha: float = DEFAULT_ALPHA,
    shape: Shape = DEFAULT_SHAPE,
) -> float:
    """n - alpha * f(l) of one request, tokens. Negative where the waiting outweighs the text."""
    return tokens - alpha * penalty(form, idle_s, tokens=tokens, pace_tok_s=pace_tok_s, shape=shape)


def abandon_threshold_tok_s(
    form: Form, *, alpha: float = DEFAULT_ALPHA, pace_tok_s: float = DEFAULT_PACE_TOK_S
) -> float | None:
    """The rate g* below which a request is worth more unserved, tokens/s. 0: it never is.

    Delivered at g < v tokens/s, each token adds 1/g - 1/v seconds of idle; with f = c l it is
    worth 1 - alpha c (1/g - 1/v), which is negative iff g < 1 / (1/(alpha c) + 1/v). A system
    tuned to such a form still gives up requests that it can serve only more slowly than that.
    F5 is F1 once the tolerance is used up. F3 is F1 until it takes the whole answer, which is
    worse than nothing iff alpha > 1.

    None for F0 and F4, which are bounded: there the length of the answer decides, and no rate.
    """
    match form:
        case Form.F1 | Form.F5:
            per_second = alpha * pace_tok_s
        case Form.F2:
            per_second = alpha
        case Form.F3:
            per_second = alpha * pace_tok_s if alpha > 1 else 0.0
        case Form.F0 | Form.F4:
            return None
        case _:
            assert_never(form)
    return 1 / (1 / per_second + 1 / pace_tok_s) if per_second else 0.0
