"""What a scenario promises its users."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.reading.curves import Stage, StagedCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class SloClass:
    """A time to the first token that grows with the prompt, and a time per token.

    Ref: [SLOs-Serve] scenario table: a slow-down over the zero-load time to the first token.
    """

    name: str
    ttft_slowdown: float
    """TTFT bound as a multiple of the zero-load TTFT of the same prompt."""
    tpot_s: float
    think_tpot_s: float | None = None
    """Of thinking tokens, where a request has them."""

    def curve(self, *, zero_load_ttft_s: float, thinking_tokens: int = 0) -> StagedCurve:
        """The due times of one request."""
        stages: tuple[Stage, ...] = (Stage(tpot_s=self.tpot_s),)
        if thinking_tokens and self.think_tpot_s is not None:
            stages = (Stage(tpot_s=self.think_tpot_s, tokens=thinking_tokens), *stages)
        return StagedCurve(ttft_s=self.ttft_slowdown * zero_load_ttft_s, stages=stages)
