"""How long a reader will wait, from what he has left and how fast more comes."""

from __future__ import annotations

from collections.abc import Iterable


def idle_ahead_s(
    slack_s: float, phases: Iterable[tuple[float, float]], *, pace_tok_s: float
) -> float:
    """Seconds within these phases in which the reader has nothing to read; text flows evenly.

    Args:
        slack_s: what he has left to read; waits so far are sunk, so less than 0 counts as 0.
        phases: one after the other from now, each its length in seconds and the tokens per second
            that are made in it.
        pace_tok_s: his own.
    """
    left_s = max(0.0, slack_s)
    idle_s = 0.0
    for length_s, made_tok_s in phases:
        gain = made_tok_s / pace_tok_s - 1  # seconds of text won per second
        if gain >= 0:
            left_s += gain * length_s
            continue
        dry_s = left_s / -gain  # until he has nothing left
        if dry_s >= length_s:
            left_s += gain * length_s
        else:
            left_s = 0.0
            idle_s += (length_s - dry_s) * -gain
    return idle_s
