"""The output delay, found from when tokens existed, or from the signature that pacing leaves."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from readahead.core.reading.timeline import Timeline

LATE_S_MIN = 0.1
"""A token this late, against the promptest of its answer, may have been held: twice the longest
that tokens wait to share a frame, and above the jitter of most networks."""

APART_S_MIN = 0.02
"""Tokens that pile up on a broken path come together once it works; held ones come one by one."""

HELD_TOKENS_MIN = 5
HELD_SHARE_MIN = 0.05
"""Fewer tokens are an accident on the way, not a policy."""

NEAR_SHARE = 0.02
NEAR_S_MIN = 0.001
"""Gaps this close to one another are a timer's: steps of an engine vary more with their batch."""

THRESHOLD_SHARES = (0.8, 1.02)
"""Pacing aims at the threshold or a little below; the 2 % are the timer's."""

PACED_GAPS_MIN = 8
PACED_SHARE_MIN = 0.5
FASTER_SHARE_MAX = 0.02
"""The signature: at least half of all gaps are one constant, and hardly any is shorter."""

SUSPECTS_MAX = 256
"""Most requests whose times are kept, to compare them with one another."""

FOUND_MAX = 100_000
"""Most requests that are remembered as paced; later ones are not looked at."""

TOGETHER_S = 0.002
"""Tokens of one engine step reach their users within this."""

TOGETHER_SHARE_MAX = 0.5
COMPARED_MIN = 100
"""Tokens to compare with others' before anything is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Tokens of one request that were kept from its user."""

    request_id: str
    tokens: int
    longest_s: float
    """0 where the log does not say when they existed."""
    evidence: str


def held(timeline: Timeline) -> Held | None:
    """Tokens held although they existed and the way was open. None: there is no such pattern.

    Each token is measured against the promptest of its answer, which takes transport out. It was
    held if it comes late, if it existed when the one before it went out, and still came apart
    from it. Frames that gather tokens for some 50 ms are not that late; what a broken network
    delays comes in one go.

    A path so narrow that single tokens queue on it would look the same.
    """
    times_s, made_s = timeline.token_times_s, timeline.made_times_s
    if made_s is None or len(made_s) != len(times_s) or len(times_s) < HELD_TOKENS_MIN:
        return None
    transport_s = min(at - made for at, made in zip(times_s, made_s, strict=True))
    late_s = []
    for (before, at), made in zip(pairwise(times_s), made_s[1:], strict=True):
        ready = made + transport_s
        if at - ready > LATE_S_MIN and ready <= before and at - before > APART_S_MIN:
            late_s.append(at - ready)
    if len(late_s) < max(HELD_TOKENS_MIN, HELD_SHARE_MIN * len(times_s)):
        return None
    return Held(
        request_id=timeline.request_id,
        tokens=len(late_s),
        longest_s=max(late_s),
        evidence=(
            f"{len(late_s)} of {len(times_s)} tokens came one by one after they existed,"
            f" up to {max(late_s):.2f} s late"
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suspect:
    held: Held
    gap_s: float
    times_s: tuple[float, ...]
    """Empty once enough are kept."""


class PacingSearch:
    """Looks for pacing where the log does not say when tokens existed.

    Two things are asked for. One request's gaps must be one constant, at the TBT threshold or a
    little below, with hardly any shorter: a hoard is given out by a timer. And the requests must
    not move together: those in one engine's batch get their tokens in the same steps, so that an
    honest engine whose step just equals the threshold is known as honest, while each held answer
    has a timer of its own. What comes together by chance is seen half a gap later, and taken off.
    Where no two suspects overlap, nothing is said.
    """

    def __init__(self) -> None:
        self._suspects: list[_Suspect] = []

    def add(self, timeline: Timeline, *, tbt_s: float) -> None:
        """One more request, and the threshold that pacing would aim at."""
        if len(self._suspects) >= FOUND_MAX:
            return
        if suspect := _suspect(timeline, tbt_s):
            is_kept = len(self._suspects) < SUSPECTS_MAX
            times_s = tuple(timeline.token_times_s) if is_kept else ()
            self._suspects.append(_Suspect(held=suspect[0], gap_s=suspect[1], times_s=times_s))

    def found(self) -> list[Held]:
        """The requests that were paced."""
        kept = [suspect for suspect in self._suspects if suspect.times_s]
        kept.sort(key=lambda suspect: suspect.times_s[0])
        compared = together = by_chance = 0
        for suspect, others in _overlapping(kept):
            for at in suspect.times_s[1:]:
                there = [other for other in others if other[0] <= at <= other[-1]]
                if there:
                    compared += 1
                    together += any(_has(other, at) for other in there)
                    by_chance += any(_has(other, at + suspect.gap_s / 2) for other in there)
        if compared < COMPARED_MIN or together - by_chance > TOGETHER_SHARE_MAX * compared:
            return []
        return [suspect.held for suspect in self._suspects]


def _suspect(timeline: Timeline, tbt_s: float) -> tuple[Held, float] | None:
    """The request's signature and its constant gap. None: it has none."""
    gaps_s = [later - earlier for earlier, later in pairwise(timeline.token_times_s)]
    low, high = (share * tbt_s for share in THRESHOLD_SHARES)
    candidates = [gap for gap in gaps_s if low <= gap <= high]
    if len(candidates) < PACED_GAPS_MIN:
        return None
    gap_s = median(candidates)
    near_s = max(NEAR_S_MIN, NEAR_SHARE * gap_s)
    paced = sum(abs(gap - gap_s) <= near_s for gap in gaps_s)
    faster = sum(gap < gap_s - near_s for gap in gaps_s)
    if paced < max(PACED_GAPS_MIN, PACED_SHARE_MIN * len(gaps_s)):
        return None
    if faster > FASTER_SHARE_MAX * len(gaps_s):
        return None
    evidence = (
        f"{paced} of {len(gaps_s)} gaps are {gap_s * 1000:.0f} ms and {faster} are shorter:"
        f" a timer at the TBT threshold of {tbt_s * 1000:.0f} ms"
    )
    found = Held(request_id=timeline.request_id, tokens=paced, longest_s=0.0, evidence=evidence)
    return found, gap_s


def _overlapping(
    ordered: Sequence[_Suspect],
) -> Iterator[tuple[_Suspect, list[tuple[float, ...]]]]:
    """Each request with the times of those that ran beside it; they come by their first token."""
    for suspect in ordered:
        yield (
            suspect,
            [
                other.times_s
                for other in ordered
                if other is not suspect
                and other.times_s[0] <= suspect.times_s[-1]
                and other.times_s[-1] >= suspect.times_s[0]
            ],
        )


def _has(times_s: Sequence[float], at: float) -> bool:
    """Whether one of the ordered times is at most TOGETHER_S away."""
    index = bisect_left(times_s, at - TOGETHER_S)
    return index < len(times_s) and times_s[index] <= at + TOGETHER_S
