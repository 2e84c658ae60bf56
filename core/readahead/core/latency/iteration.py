"""How long an engine iteration takes."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.config import require


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationWork:
    """What one iteration of an engine computes."""

    tokens: int
    """New tokens: those of prompt chunks, and one for each request that decodes."""
    requests: int
    """Requests in the batch."""
    past_tokens: int
    """KV tokens that decoding requests read."""
    prefill_pairs: int
    """Over prompt chunks, Σ (chunk tokens · tokens before the chunk + chunk · (chunk + 1) / 2)."""
    draft_steps: int = 0
    """Length of the longest draft."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPlane:
    """One linear bound on an iteration's time; every coefficient in seconds."""

    token_s: float = 0.0
    request_s: float = 0.0
    past_token_s: float = 0.0
    prefill_pair_s: float = 0.0
    draft_step_s: float = 0.0
    base_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("token_s", "request_s", "past_token_s", "prefill_pair_s", "draft_step_s"):
            require(name, getattr(self, name), least=0)
        require("base_s", self.base_s, least=0)

    def seconds(self, work: IterationWork) -> float:
        """The bound for this work."""
        return (
            self.token_s * work.tokens
            + self.request_s * work.requests
            + self.past_token_s * work.past_tokens
            + self.prefill_pair_s * work.prefill_pairs
            + self.draft_step_s * work.draft_steps
            + self.base_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """The iteration time of one model on one device: the greatest of its planes, scaled."""

    name: str
    """Model and device, for reports."""
    planes: tuple[LatencyPlane, ...]
    time_scale: float = 1.0
    """Multiplies every time; 0.1 runs ten times faster than the device."""

    def __post_init__(self) -> None:
        if not self.planes:
            raise ValueError("planes must not be empty")
        require("time_scale", self.time_scale, least=1e-9)


def iteration_s(work: IterationWork, *, model: LatencyModel) -> float:
    """Seconds that one iteration of this work takes.

    t = time_scale · max over planes (token_s·tokens + request_s·requests +
    past_token_s·past_tokens + prefill_pair_s·prefill_pairs + draft_step_s·draft_steps + base_s)

    An iteration without tokens does not happen and takes no time. More of anything never takes
    less time.

    Ref: [SLOs-Serve] performance model, a maximum of linear planes; its authors' later code adds
         the terms per request and per past token.
    Differs: a term for the pairs of prompt attention, which is quadratic in the prompt's length.
    """
    if work.tokens == 0:
        return 0.0
    return model.time_scale * max(plane.seconds(work) for plane in model.planes)


LLAMA_3_1_8B_A100_80G = LatencyModel(
    name="Llama-3.1-8B on A100-80G",
    planes=(
        # Compute-bound. Through composed prefill times of 512/1024/2048/4096/8192 tokens:
        # 34/63/123/256/558 ms.
        LatencyPlane(
            token_s=5.75e-5,
            past_token_s=8.2e-8,
            prefill_pair_s=2.2e-9,
            base_s=3.8e-3,
        ),
        # Bound by reading weights and KV. Through composed decode times at 1,024 past tokens and
        # a batch of 1/8/32/128: 11.4/12.0/15.0/24.2 ms. A past token is 131,072 bytes at 80 % of
        # 2.0 TB/s.
        LatencyPlane(
            request_s=2.0e-5,
            past_token_s=8.2e-8,
            prefill_pair_s=2.2e-9,
            base_s=1.13e-2,
        ),
    ),
)
"""Anchored by hand on times composed from aiconfigurator's measured operators (vLLM kernels, bf16);
host overhead between iterations is not in them. A stand-in until a fit replaces it."""
