"""PB*: how many prompt tokens fit beside those who decode at their tiers' paces.

An interval is cut into batches of equal length, the longest that the tightest tier bears, so that
the last one ends with it: the looser the tiers, the larger the batches. A request of tier l gets
one token in every floor(tier time / batch time) batches, spread evenly; with drafts it is verified
in each batch. Of what this leaves for prompts, the budget is the greatest bound from below that is
a straight line in the interval's length:

    tokens(span) = tokens_per_s · span - cut_tokens

The line costs at most one batch's base per interval and buys two laws. More requests that decode
never raise `tokens_per_s`, nor, without drafts, lessen `cut_tokens`; so a due time that moves back
never makes an accepted set infeasible. And one comparison tells which of two plans is the better
one.

Ref: [SLOs-Serve] PB*, dynamic batch size.
Differs: batches end with the interval and are equally long, where the source ends each at the
    next due token; so nothing need be carried from one interval to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from readahead.core.latency.iteration import LatencyModel
from readahead.core.planning.slos.tiers import Counts, Drafts, Prompt, Segment
from readahead.core.planning.speculation import draft_choices

ROUNDING = 1e-9
"""Relative: times that differ by less are one."""
LINES_MAX = 20_000
"""Lines that a budget keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The budget while the same requests decode."""

    tokens_per_s: float
    """Negative where those who decode cannot keep their pace."""
    cut_tokens: float
    """What is lost for each interval."""
    batch_s: float
    """Longest batch, seconds."""
    draft_tokens: tuple[int, ...] | None = None

    def tokens(self, span_s: float) -> float:
        """Prompt tokens that can be computed in an interval; 0 or less: none for sure."""
        return self.tokens_per_s * span_s - self.cut_tokens


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch length, and what it leaves."""

    batch_s: float
    free_tokens_per_s: float
    """Prompt tokens a second where nobody decodes."""
    request_tokens_per_s: tuple[float, ...]
    """Of them, what a request of each tier takes."""


@dataclass(frozen=True, slots=True)
class _Verification:
    """A batch in which everybody's drafts are verified, for one set of tiers in use."""

    batch_s: float
    draft_tokens: tuple[int, ...]
    free_tokens_per_s: float
    """Prompt tokens a second beside the longest draft's steps alone."""
    request_tokens_per_s: tuple[float, ...]
    """Of them, what a request of each tier takes."""
    steps_s: float
    request_s: tuple[float, ...]
    """Seconds of a batch that a request of each tier takes."""

    def is_behind(self, other: _Verification) -> bool:
        """Whether that one leaves no less, whoever decodes."""
        return other.free_tokens_per_s >= self.free_tokens_per_s and all(
            its <= own
            for its, own in zip(other.request_tokens_per_s, self.request_tokens_per_s, strict=True)
        )


class PrefillBudget:
    """The budget lines of one engine, made from its latency model.

    Seconds of a batch are bounded by base_s + token_s · prompt tokens + decode_s · decodes. The
    bound is linear though the model is a maximum of planes: `token_s` is the chord from the empty
    batch to the fullest one, under which a convex function stays. Prompt attention, which is
    quadratic, counts as further tokens of its prompt (`demand_tokens`).
    """

    def __init__(
        self,
        model: LatencyModel,
        tiers: tuple[float, ...],
        *,
        context_tokens: int,
        drafts: Drafts | None = None,
    ) -> None:
        """Prices of a batch's parts.

        Raises:
            ValueError: no plane charges for tokens, or not even an empty batch fits the loosest
                tier.
        """
        if not any(plane.token_s for plane in model.planes):
            raise ValueError(f"{model.name}: a plane must charge for tokens")
        scale, planes = model.time_scale, model.planes
        self.tiers, self.drafts = tiers, drafts
        weight = model.mixing * max(model.kv_weight.values if model.kv_weight else (1.0,))
        request_s = max(plane.request_s for plane in planes) + model.host_request_s
        past_s = max(plane.past_token_s for plane in planes) * weight * context_tokens
        self._points = [(plane.base_s, plane.token_s) for plane in planes]
        self._host_s, self._scale = model.host_base_s, scale
        self.verify_s = scale * max(plane.token_s for plane in planes)
        self.decode_s = scale * (request_s + past_s) + self.verify_s
        self.chunk_s = scale * request_s
        self.pair_s = scale * max(plane.prefill_pair_s for plane in planes)
        self.draft_step_s = scale * max(plane.draft_step_s for plane in planes)
        tile_s = scale * max(0.0, *model.tile_s.values) if model.tile_s else 0.0
        self.empty_s = scale * (model.host_base_s + max(base for base, _ in self._points))
        # A batch may round its chunk down by a token and each tier's decodes up by one.
        rounding_s = self.verify_s + len(tiers) * self.decode_s
        self.base_s = self.empty_s + tile_s + self.chunk_s + rounding_s
        usable = [tier for tier in tiers if tier > self.base_s]
        if not usable:
            raise ValueError(f"{model.name}: not even an empty batch fits {tiers[-1]:g} s")
        self.least_token_s = self.token_s(usable[0])
        self._batches = [self._batch(tier) for tier in usable]
        self._lines: dict[Counts, Line] = {}
        self._choices = (
            draft_choices(
                tiers,
                acceptance=drafts.acceptance,
                draft_tokens_max=drafts.draft_tokens_max,
            )
            if drafts
            else ()
        )
        self._verifications: dict[tuple[bool, ...], list[_Verification]] = {}

    def token_s(self, batch_s: float) -> float:
        """Seconds of a prompt token in batches of at most so long."""
        device_s = batch_s / self._scale - self._host_s
        most = min((device_s - base) / token for base, token in self._points if token)
        return (batch_s - self.empty_s) / most

    def _batch(self, batch_s: float) -> _Batch:
        token_s = self.token_s(batch_s)
        shares = [
            self.decode_s / (max(1, int(tier / batch_s + ROUNDING)) * batch_s)
            for tier in self.tiers
        ]
        return _Batch(
            batch_s,
            (1 - self.base_s / batch_s) / token_s,
            tuple(share / token_s for share in shares),
        )

    def demand_tokens(self, prompt: Prompt) -> float:
        """Tokens of budget that a prompt takes: its own, its attention's and its last chunk's."""
        tokens = prompt.prompt_tokens
        pairs = tokens * prompt.before_tokens + tokens * (tokens + 1) // 2
        return tokens + (self.pair_s * pairs + self.chunk_s) / self.least_token_s

    def line(self, counts: Counts) -> Line:
        """The budget while so many of each tier decode."""
        line = self._lines.get(counts)
        if line is None:
            line = self._plain(counts)
            if self.drafts is not None and any(counts):
                drafted = self._drafted(counts)
                if drafted is not None and drafted.tokens_per_s > line.tokens_per_s:
                    line = drafted
            if len(self._lines) >= LINES_MAX:
                self._lines.clear()
            self._lines[counts] = line
        return line

    def _plain(self, counts: Counts) -> Line:
        tightest_s = next(
            (tier for tier, count in zip(self.tiers, counts, strict=True) if count), math.inf
        )
        cut_tokens = (self.base_s + sum(counts) * self.decode_s) / self.least_token_s
        best_s, best = tightest_s, -math.inf
        for each in self._batches:
            if each.batch_s > tightest_s:
                break
            left = each.free_tokens_per_s
            for count, taken in zip(counts, each.request_tokens_per_s, strict=True):
                left -= count * taken
            if left >= best:
                best_s, best = each.batch_s, left
        return Line(tokens_per_s=best, cut_tokens=cut_tokens, batch_s=best_s)

    def _drafted(self, counts: Counts) -> Line | None:
        """The best of the batches in which drafts are verified; None where there is none."""
        used = tuple([count > 0 for count in counts])
        ways = self._verifications.get(used)
        if ways is None:
            ways = self._verifications[used] = self._ways(used)
        best, best_way = -math.inf, None
        for way in ways:
            left = way.free_tokens_per_s
            for count, taken in zip(counts, way.request_tokens_per_s, strict=True):
                left -= count * taken
            if left > best:
                best, best_way = left, way
        if best_way is None:
            return None
        requests_s = [count * each for count, each in zip(counts, best_way.request_s, strict=True)]
        return Line(
            tokens_per_s=best,
            cut_tokens=(self.base_s + best_way.steps_s + sum(requests_s)) / self.least_token_s,
            batch_s=best_way.batch_s,
            draft_tokens=best_way.draft_tokens,
        )

    def _ways(self, used: tuple[bool, ...]) -> list[_Verification]:
        """All batches worth trying while these tiers are in use, and no others."""
        ways: list[_Verification] = []
        for choice in self._choices:
            lengths = [
                n if is_used else 1 for n, is_used in zip(choice.draft_tokens, used, strict=True)
            ]
            if not all(lengths) or choice.iteration_s <= self.empty_s:
                continue
            batch_s, steps_s = choice.iteration_s, (max(lengths) - 1) * self.draft_step_s
            token_s = self.token_s(batch_s)
            request_s = tuple(self.decode_s + (n - 1) * self.verify_s for n in lengths)
            ways.append(
                _Verification(
                    batch_s,
                    tuple(lengths),
                    (1 - (self.base_s + steps_s) / batch_s) / token_s,
                    tuple(
                        each / (batch_s * token_s) if is_used else 0.0
                        for each, is_used in zip(request_s, used, strict=True)
                    ),
                    steps_s,
                    request_s,
                )
            )
        kept: list[_Verification] = []
        for way in ways:
            if not any(way.is_behind(other) for other in kept):
                kept = [other for other in kept if not other.is_behind(way)]
                kept.append(way)
        return kept

    def segment(self, counts: Counts, start_s: float, end_s: float) -> Segment:
        """The batches that the line stands for."""
        line = self.line(counts)
        return Segment(
            start_s=start_s,
            end_s=end_s,
            counts=counts,
            batches=max(1, math.ceil((end_s - start_s) / line.batch_s - ROUNDING)),
            draft_tokens=line.draft_tokens,
        )

    def rest(self, counts: Counts, start_s: float) -> Segment | None:
        """Batches after which each tier is where it was; None where nobody decodes."""
        if not any(counts):
            return None
        line = self.line(counts)
        batches = 1
        if line.draft_tokens is None:
            batches = math.lcm(
                *(
                    int(tier / line.batch_s + ROUNDING)
                    for tier, count in zip(self.tiers, counts, strict=True)
                    if count
                )
            )
        return Segment(
            start_s=start_s,
            end_s=start_s + batches * line.batch_s,
            counts=counts,
            batches=batches,
            draft_tokens=line.draft_tokens,
        )
