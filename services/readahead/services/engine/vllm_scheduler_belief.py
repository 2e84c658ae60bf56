"""What the planner believes of its engine's iteration times, corrected while it serves."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

from readahead.core.latency.correction import OnlineCorrection
from readahead.core.latency.iteration import Curve, IterationWork, LatencyModel, iteration_s
from readahead.core.latency.profile_text import from_text, profile
from readahead.core.latency.zero_load import zero_load_curve

UNFINISHED_MAX = 8
"""Iterations that asynchronous scheduling may have under way; it has two."""
EVERY = 4
"""One iteration in so many is compared: adding its work up costs more than the rest."""
RETELL = 0.05
"""Policies remember what they reckoned by a model, so they get a new one only when the correction
has moved by this share."""


def latency_of(name: str) -> LatencyModel | None:
    """The model of a shipped profile, or of a file as `readahead calibrate` writes it.

    None where no name is given: policies then plan by tokens alone.

    Raises:
        ValueError: there is no such profile or file, or it cannot be read.
    """
    if not name:
        return None
    if not name.endswith(".json"):
        return profile(name).latency
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"engine.latency_profile: no file {name!r}")
    return from_text(path.read_text(encoding="utf-8"), where=name).latency


def zero_load_of(
    name: str, *, context_tokens_max: int, batch_tokens_max: int, delivery_lag_s: float = 0.0
) -> Curve | None:
    """Seconds until a prompt alone has its first token with its reader, by its tokens, under such
    a profile."""
    model = latency_of(name)
    if model is None:
        return None
    made = zero_load_curve(
        model, context_tokens_max=context_tokens_max, batch_tokens_max=batch_tokens_max
    )
    return replace(made, values=tuple(made_s + delivery_lag_s for made_s in made.values))


class Belief:
    """A latency model that learns from the iterations it predicted."""

    def __init__(self, model: LatencyModel | None) -> None:
        self.model = model
        """As policies are to use it."""
        self._bare = model
        self._correction = OnlineCorrection()
        self._told = 1.0
        self._began: deque[tuple[float, IterationWork | None]] = deque(maxlen=UNFINISHED_MAX)
        self._ended_at = 0.0
        self._count = 0

    def is_due(self) -> bool:
        """Whether the iteration that begins is to be compared."""
        self._count += 1
        return self._bare is not None and self._count % EVERY == 0

    def began(self, work: IterationWork | None, now: float) -> None:
        """An iteration was scheduled; None for work that is not to be compared."""
        self._began.append((now, work))

    def ended(self, now: float) -> bool:
        """The oldest iteration is over. Returns whether `model` is another one now.

        One that was scheduled while another ran began when that one ended.
        """
        if not self._began:
            return False
        began_at, work = self._began.popleft()
        actual_s = now - max(began_at, self._ended_at)
        self._ended_at = now
        if work is None or self._bare is None:
            return False
        self._correction = self._correction.after(
            actual_s=actual_s, predicted_s=iteration_s(work, model=self._bare), iterations=EVERY
        )
        factor = self._correction.factor
        if abs(factor - self._told) <= RETELL * self._told:
            return False
        self._told = factor
        self.model = self._correction.corrected(self._bare)
        return True
