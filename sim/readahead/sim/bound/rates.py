"""What no engine of a cluster does faster, as linear bounds on the time of iterations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from readahead.core.cluster import Role
from readahead.core.latency.iteration import Curve, LatencyModel, LatencyPlane
from readahead.sim.cluster import ClusterSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An iteration takes at least the sum of these, each times what the iteration holds; seconds,
    none below 0."""

    iteration_s: float
    entry_s: float
    """For each request in the batch."""
    token_s: float
    past_token_s: float
    """For each KV token that a decoding request reads."""
    pair_s: float
    """For each pair of prompt attention."""

    def prompt_s(self, tokens: int) -> float:
        """What computing so many tokens from nothing adds, beside iterations and entries.

        The token at place k attends to k before it: pair_s each in a chunk of several, past_token_s
        each where it stands alone, so that the cheaper of both is a bound however it is cut.
        """
        pairs = tokens * (tokens - 1) / 2
        return self.token_s * tokens + min(self.pair_s, self.past_token_s) * pairs

    def next_s(self, past_tokens: int, *, has_prefix_cache: bool) -> float:
        """What a further token of a request with so much KV adds, beside iteration and entry.

        Either it decodes; or its KV was given up, and all of it is computed again in chunks, which
        may cost this line less. Of that the later half is counted, each of whose tokens attends to
        the earlier half at least: so any share of it costs that share, wherever its chunks are cut.
        With a prefix cache the last token alone may be left to compute.
        """
        attention_s = min(self.pair_s, self.past_token_s)
        decoded_s = self.token_s + self.past_token_s * past_tokens
        if has_prefix_cache:
            return min(decoded_s, self.token_s + attention_s * past_tokens)
        earlier = (past_tokens + 1) // 2
        later = past_tokens + 1 - earlier
        return min(decoded_s, later * (self.token_s + attention_s * earlier))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """All engines of a cluster in one pool.

    Why the pool is a relaxation: what each engine holds in a span of time obeys these limits, so
    that the sum over engines obeys their sum. It may in addition send any token to any engine, and
    move KV for nothing.
    """

    lines: tuple[Line, ...]
    engines: int
    entries_max: int
    """Of one iteration, as the next two."""
    tokens_max: int
    kv_tokens: int
    has_prefix_cache: bool

    def computed_tokens(self, prompt_tokens: int) -> int:
        """The least of a prompt that is computed; a prefix cache may have all but one token."""
        return 1 if self.has_prefix_cache else prompt_tokens

    def first_token_s(self, prompt_tokens: int) -> float:
        """No first token comes sooner after its request.

        Proof: n computed prompt tokens take at least ceil(n / tokens_max) iterations, one after
        the other, each with the request as an entry. Summing a line over them, other entries left
        out (no coefficient is negative), bounds their time from below.
        """
        tokens = self.computed_tokens(prompt_tokens)
        iterations = -(-tokens // self.tokens_max)
        return max(
            (
                iterations * (line.iteration_s + line.entry_s) + line.prompt_s(tokens)
                for line in self.lines
            ),
            default=0.0,
        )

    def prompt_step_s(self, prompt_tokens: int) -> float:
        """A share of a prompt takes no less than that share of this, at any moment.

        Proof: a chunk of c of its n tokens is in an iteration of at least a + b c seconds, so that
        a second does c / (n (a + b c)) of it: the more, the longer the chunk is.
        """
        tokens = self.computed_tokens(prompt_tokens)
        chunks = max(1.0, tokens / self.tokens_max)
        return max(
            (
                chunks * (line.iteration_s + line.entry_s) + line.token_s * tokens
                for line in self.lines
            ),
            default=0.0,
        )

    def step_s(self, past_tokens: int) -> float:
        """No two tokens of a request with so much KV come closer after each other: each takes an
        iteration that holds it, and a request is in one iteration at a time."""
        return max(
            (
                line.iteration_s
                + line.entry_s
                + line.next_s(past_tokens, has_prefix_cache=self.has_prefix_cache)
                for line in self.lines
            ),
            default=0.0,
        )


def rates(spec: ClusterSpec) -> Rates:
    """The limits of a cluster.

    Raises:
        ValueError: iteration times are drawn, which bounds nothing with certainty; or the two
            roles' workers differ, which one pool cannot hold.
    """
    worker = spec.worker(Role.DECODE)
    if spec.prefill and spec.worker(Role.PREFILL) != worker:
        raise ValueError("prefill and decode workers must be alike to be bounded together")
    if worker.draft_tokens_max:
        raise ValueError("draft_tokens_max must be 0 for a certain bound: drafts make more tokens")
    if worker.noise_sigma:
        raise ValueError(f"noise_sigma must be 0 for a certain bound, is {worker.noise_sigma}")
    return Rates(
        lines=_lines(worker.latency, scale=worker.true_scale, tokens_max=worker.batch_tokens_max),
        engines=spec.prefill + spec.decode,
        entries_max=worker.requests_max,
        tokens_max=worker.batch_tokens_max,
        kv_tokens=worker.kv_blocks * worker.block_tokens,
        has_prefix_cache=worker.has_prefix_cache,
    )


def _lines(model: LatencyModel, *, scale: float, tokens_max: int) -> tuple[Line, ...]:
    """Each plane with each side of the tiles' convex hull.

    Proof: the time is the host's part, plus the greatest plane, plus the tiles: at least any one
    plane plus any line below the tiles. KV counts at least the least of `kv_weight`; `mixing` is
    1 or more; contention only takes longer. Where a token's coefficient would
    be negative, tokens are at most tokens_max, so that it goes into the iteration's.
    """
    weight = min(model.kv_weight.values) if model.kv_weight else 1.0
    found = (
        _line(model, plane, tile, weight=weight, scale=scale, tokens_max=tokens_max)
        for plane in model.planes
        for tile in _below(model.tile_s, tokens_max)
    )
    return tuple(line for line in found if line.iteration_s >= 0)


def _line(
    model: LatencyModel,
    plane: LatencyPlane,
    tile: tuple[float, float],
    *,
    weight: float,
    scale: float,
    tokens_max: int,
) -> Line:
    token_s = plane.token_s + tile[1]
    iteration_s = model.host_base_s + plane.base_s + tile[0] + min(0.0, token_s) * tokens_max
    scale *= model.time_scale
    return Line(
        iteration_s=scale * iteration_s,
        entry_s=scale * (model.host_request_s + plane.request_s),
        token_s=scale * max(0.0, token_s),
        past_token_s=scale * plane.past_token_s * weight,
        pair_s=scale * plane.prefill_pair_s,
    )


def _below(curve: Curve | None, tokens_max: int) -> list[tuple[float, float]]:
    """Lines (value at 0, slope) below a curve from 1 to `tokens_max`: its lower convex hull's."""
    if curve is None:
        return [(0.0, 0.0)]
    sizes = sorted({1, tokens_max, *(size for size in curve.sizes if size < tokens_max)})
    hull: list[tuple[int, float]] = []
    for point in ((size, curve.at(size)) for size in sizes):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    if len(hull) == 1:
        return [(hull[0][1], 0.0)]
    slopes = [(low, _slope(low, high)) for low, high in pairwise(hull)]
    return [(low[1] - slope * low[0], slope) for low, slope in slopes]


def _slope(low: tuple[int, float], high: tuple[int, float]) -> float:
    return (high[1] - low[1]) / (high[0] - low[0])
