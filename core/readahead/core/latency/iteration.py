"""How long an engine iteration takes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

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

    def with_chunk(self, tokens: int, *, before_tokens: int = 0) -> IterationWork:
        """The same with one more prompt chunk, of a prompt that is computed up to `before_tokens`.

        A chunk of no tokens is none.
        """
        if tokens == 0:
            return self
        pairs = tokens * before_tokens + tokens * (tokens + 1) // 2
        return IterationWork(
            tokens=self.tokens + tokens,
            requests=self.requests + 1,
            past_tokens=self.past_tokens,
            prefill_pairs=self.prefill_pairs + pairs,
            draft_steps=self.draft_steps,
        )


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

    def seconds(self, work: IterationWork, *, past_weight: float = 1.0) -> float:
        """The bound for this work, each past token counted `past_weight` times."""
        return (
            self.token_s * work.tokens
            + self.request_s * work.requests
            + self.past_token_s * past_weight * work.past_tokens
            + self.prefill_pair_s * work.prefill_pairs
            + self.draft_step_s * work.draft_steps
            + self.base_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A value by a size: straight between the sizes given, the first's before, the last's after."""

    sizes: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.values) or not self.sizes:
            raise ValueError(
                f"a curve needs as many sizes as values, has {len(self.sizes)} and"
                f" {len(self.values)}"
            )
        if self.sizes[0] < 1 or any(
            b <= a for a, b in zip(self.sizes, self.sizes[1:], strict=False)
        ):
            raise ValueError(f"sizes must be >= 1 and ascend, are {self.sizes}")

    def at(self, size: int) -> float:
        """The value for this size."""
        sizes, values = self.sizes, self.values
        after = bisect_right(sizes, size)
        if after == 0:
            return values[0]
        if after == len(sizes):
            return values[-1]
        low = sizes[after - 1]
        part = (size - low) / (sizes[after] - low)
        return values[after - 1] + part * (values[after] - values[after - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """The iteration time of one model on one device: the greatest of its planes, scaled."""

    name: str
    """Model and device, for reports."""
    planes: tuple[LatencyPlane, ...]
    time_scale: float = 1.0
    """Multiplies every time; 0.1 runs ten times faster than the device."""
    mixing: float = 1.0
    """How many times dearer a past token is to read in a batch that also holds a prompt chunk."""
    host_base_s: float = 0.0
    """Host time of every iteration that the device waits for, over what the planes hold."""
    host_request_s: float = 0.0
    """The same for each request of the batch: sampling, detokenising, scheduling."""
    tile_s: Curve | None = None
    """By new tokens: seconds over the planes, or under them where negative. Kernels work in tiles:
    256 tokens fill some that 257 do not."""
    kv_weight: Curve | None = None
    """By requests: how many times dearer than the planes say a past token is to read. Kernels
    split that work well for some sizes of a batch and badly for others."""

    def __post_init__(self) -> None:
        if not self.planes:
            raise ValueError("planes must not be empty")
        require("time_scale", self.time_scale, least=1e-9)
        require("mixing", self.mixing, least=1)
        require("host_base_s", self.host_base_s, least=0)
        require("host_request_s", self.host_request_s, least=0)
        for value in self.kv_weight.values if self.kv_weight else ():
            require("kv_weight", value, least=0.05, most=20)
        if self.tile_s is not None:
            self._check_tiles(self.tile_s)

    def _check_tiles(self, curve: Curve) -> None:
        """No iteration may take less than nothing: between neighbouring sizes one plane and the
        curve are a line, which is positive if its ends are."""
        ends = [(1, curve.values[0]), *zip(curve.sizes, curve.values, strict=True)]
        for low, high in pairwise(ends):
            if not any(
                all(p.base_s + p.token_s * size + value >= 0 for size, value in (low, high))
                for p in self.planes
            ):
                raise ValueError(f"tile_s takes more than there is at {low[0]} to {high[0]} tokens")

    def past_weight(self, work: IterationWork) -> float:
        """By what this work's past tokens count: `mixing` beside a prompt chunk, else 1, times
        what the batch's size makes of it."""
        weight = self.mixing if work.prefill_pairs else 1.0
        return weight if self.kv_weight is None else weight * self.kv_weight.at(work.requests)

    def beside_s(self, work: IterationWork) -> float:
        """What comes to the greatest plane, before the time scale: the host's part and tiles'."""
        host_s = self.host_base_s + self.host_request_s * work.requests
        return host_s if self.tile_s is None else host_s + self.tile_s.at(work.tokens)


def iteration_s(work: IterationWork, *, model: LatencyModel) -> float:
    """Seconds that one iteration of this work takes.

    t = time_scale · (host_base_s + host_request_s·requests + max over planes (token_s·tokens +
    request_s·requests + past_token_s·m·past_tokens + prefill_pair_s·prefill_pairs +
    draft_step_s·draft_steps + base_s) + tile_s(tokens)), where m is `mixing` beside a prompt chunk,
    else 1, times kv_weight(requests).

    An iteration without tokens does not happen and takes no time. More past tokens, pairs or draft
    steps never take less time. Nor do more tokens or requests, unless the hardware is so: `tile_s`
    and `kv_weight` may fall.

    Ref: [SLOs-Serve] performance model, a maximum of linear planes; its authors' later code adds
         the terms per request and per past token.
    Differs: a term for the pairs of prompt attention, which is quadratic in the prompt's length;
         a host's part, which kernels do not contain; decode KV that is dearer in a mixed batch;
         sizes that a device's kernels like or dislike, which no convex function knows.
    """
    if work.tokens == 0:
        return 0.0
    weight = model.past_weight(work)
    device_s = max(plane.seconds(work, past_weight=weight) for plane in model.planes)
    return model.time_scale * (model.beside_s(work) + device_s)


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
