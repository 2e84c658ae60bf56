"""How long one user had nothing to read."""

from __future__ import annotations

from readahead.core.reading.curves import Curve
from readahead.core.reading.timeline import Timeline


def idle_s(
    timeline: Timeline,
    curve: Curve,
    *,
    censored: bool = False,
    observed_until_s: float | None = None,
) -> float:
    """max(0, max_i (t_i - d_i)), seconds: all stalls of a reader who resumes where he stopped.

    Literal, a stall is charged when the late token comes, so that a user left hanging for ever
    costs nothing. Censored, a request that did not end normally is also charged with the wait for
    the token that never came, until it was ended, or else until the end of observation.
    Under a reading curve, thinking is waited for and not read; without a reader nobody idles.

    Ref: [SmoothGoodput] Eq. 9. Differs: never negative, since a fast answer is no credit against
    a wait; and the censored form, which the paper does not have.
    """
    due_times_s = curve.due_times_s(timeline)
    late_s = max(
        (t - due_s for t, due_s in zip(timeline.token_times_s, due_times_s, strict=True)),
        default=0.0,
    )
    if censored and not timeline.ended_normally:
        late_s = max(late_s, given_up_s(timeline, observed_until_s) - curve.next_due_s(timeline))
    return max(0.0, float(late_s))


def given_up_s(timeline: Timeline, observed_until_s: float | None) -> float:
    """Until when the user of a request without a normal end has waited."""
    if timeline.ended_s is not None or observed_until_s is None:
        return timeline.last_s
    return max(timeline.last_s, observed_until_s)
