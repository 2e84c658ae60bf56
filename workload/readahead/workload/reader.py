"""How one user reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One user's habits, drawn when the workload is made."""

    pace_tok_s: float
    """Tokens per second that he reads at the start of an answer."""
    drift_per_100_tokens: float = 0.0
    """Relative change of his pace over 100 tokens read; 0.1 is 10 % faster, -0.1 slower."""
    tells_pace: bool = True
    """Whether the request says his pace."""
    report_every_s: float | None = None
    """How often his client reports what he has read; None: never."""
    patience_s: float | None = None
    """He leaves (cancels) when one wait for text lasts this long; None: he waits for ever."""
    leaves_after_tokens: int | None = None
    """He leaves when he has read so many; None: he reads to the end."""
    skims_from_tokens: int | None = None
    """From this token on he skims, at `skim_factor` times his pace; None: he reads it all."""
    skim_factor: float = 4.0
