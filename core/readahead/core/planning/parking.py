"""Solvent parking: who gives up device memory while he reads, and who comes back when.

A reader with much left to read needs no KV on the device until that is nearly gone. Parked, he
makes room for a prompt, at the price of two copies over the host's link, or of computing him again
where that is cheaper. It borrows memory, not computing power: where the engine cannot make tokens
as fast as all its readers read, those parked would run dry for want of it.

Ref: [TokenFlow] for moving those whose buffer outlasts the move; the limit by demand is our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from readahead.core.latency.iteration import LatencyModel
from readahead.core.planning.chunks import WorkSum, prefill_s
from readahead.core.planning.policy import EngineView, Park
from readahead.core.planning.sequence import Sequence

AHEAD_TOKENS = 4
"""Running sequences find blocks for so many further tokens: those that a park frees can be had an
iteration later, and drafts take several at once."""
BACKLOG_S = 5.0
"""Prompts that wait are reckoned as the engine's work of so many seconds, or of as many as readers
have text for in the mean: about as long as those who are parked for them stay away."""
COPIES_S = 0.05
"""Copies that are made in one iteration take so long at most, or are a single one: everybody in it
waits for them."""
RETURN_ITERATIONS = 2
"""One loads the copy, the next makes the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What happens before the next iteration."""

    park: tuple[Park, ...] = ()
    resume: tuple[Sequence, ...] = ()
    """First due first."""
    reserved_blocks: int = 0
    """Of those that are free: what prompts must leave to those who resume, or who ought to and
    cannot yet, and to the growth of those who run."""


@dataclass(slots=True)
class _Outlook:
    """What the moves of one iteration depend on."""

    view: EngineView
    model: LatencyModel
    now: float
    iteration_s: float
    """Of all who decode now."""
    decoding: list[Sequence]


@dataclass(frozen=True, slots=True, kw_only=True)
class SolventParking:
    """Decides moves. Pure and without state: a sequence tells when it was moved last."""

    bytes_per_s: float
    """Of the link between device and host memory."""
    margin_s: float
    """Slack that must be left beyond the copies."""
    dwell_s: float
    """One who has moved is not parked for so long, and none is whose slack lasts no longer."""
    share_max: float
    """Blocks of all who are parked, as a multiple of the device's blocks."""
    load_max: float
    """Share of the engine's time beyond which nobody is parked for those who wait."""

    def moves(self, view: EngineView, now: float) -> Moves:
        """The next iteration's moves; none where the engine cannot park.

        Without a model of iteration times nobody is parked: what a move costs is not known then.
        """
        model = view.limits.latency
        if view.host is None or model is None:
            return Moves(resume=tuple(_first_due(view.parked)))
        decoding = [s for s in view.running if s.missing == 1]
        work = _decode_work(decoding)
        seen = _Outlook(view, model, now, work.seconds(model) if decoding else 0.0, decoding)
        growth = sum([_growth(s, view.limits.block_tokens) for s in view.running])
        resume, kept = self._resume(seen, growth)
        reserved = growth + kept
        short = reserved - view.blocks_free - view.host.blocks_coming
        wanted = _waiting_blocks(view, len(resume))
        is_for_others = wanted > 0 and short + wanted > 0
        if is_for_others and self._load(seen) <= self.load_max:
            short += wanted
        park = self._park(seen, short) if short > 0 else ()
        return Moves(park=park, resume=resume, reserved_blocks=min(reserved, view.blocks_free))

    def is_copy_cheaper(self, view: EngineView, sequence: Sequence) -> bool:
        """Whether its KV is better kept than computed again."""
        model = view.limits.latency
        assert model is not None
        return 2 * self._copy_s(view, sequence) <= prefill_s(0, sequence.known, model)

    def away_s(self, view: EngineView, sequence: Sequence, *, iteration_s: float) -> float:
        """Least time from parking a running sequence to its next token."""
        if not self.is_copy_cheaper(view, sequence):
            return self._back_s(view, sequence, False, iteration_s)
        return self._copy_s(view, sequence) + self._back_s(view, sequence, True, iteration_s)

    def back_s(self, view: EngineView, sequence: Sequence, *, iteration_s: float) -> float:
        """Time from the resume of a parked sequence to its next token."""
        return self._back_s(view, sequence, sequence.is_copied, iteration_s)

    def _resume(self, seen: _Outlook, growth: int) -> tuple[tuple[Sequence, ...], int]:
        """Those who resume, and the free blocks that are kept for them and for those who should.

        First whoever must, by due time; nobody passes one who cannot have his blocks yet. Then,
        while nobody waits, one more in each iteration, as long as those who run can grow.
        """
        view, now = seen.view, seen.now
        resume: list[Sequence] = []
        calm: list[Sequence] = []
        free, room, kept = view.blocks_free, view.room, 0
        for sequence in _first_due(view.parked):
            back_s = self.back_s(view, sequence, iteration_s=seen.iteration_s)
            if sequence.slack_s(now) > back_s + self.margin_s:
                calm.append(sequence)
                continue
            blocks = _blocks_back(view, sequence)
            kept += blocks
            if blocks > free or room < 1:
                return tuple(resume), kept
            resume.append(sequence)
            free, room = free - blocks, room - 1
        if calm and not resume and not view.waiting and room > 0:
            blocks = _blocks_back(view, calm[0])
            if blocks + growth <= free:
                return (calm[0],), blocks
        return tuple(resume), kept

    def _park(self, seen: _Outlook, wanted: int) -> tuple[Park, ...]:
        """Those with most left to read, until so many blocks come free."""
        view, host = seen.view, seen.view.host
        assert host is not None
        blocks_max = int(self.share_max * view.limits.kv_blocks)
        left = blocks_max - sum([view.limits.blocks_for(s.known) for s in view.parked])
        host_left, copies_s = host.blocks_free, 0.0
        found: list[Park] = []
        for sequence in self._rich(seen):
            if wanted <= 0:
                break
            is_copied = self.is_copy_cheaper(view, sequence)
            copy_s = self._copy_s(view, sequence) if is_copied else 0.0
            blocks = view.limits.blocks_for(sequence.known)
            if blocks > left or (is_copied and blocks > host_left):
                continue
            if found and copies_s + copy_s > COPIES_S:
                break
            found.append(Park(sequence, is_copied))
            wanted, left, copies_s = wanted - sequence.blocks, left - blocks, copies_s + copy_s
            host_left -= blocks if is_copied else 0
        return tuple(found)

    def _rich(self, seen: _Outlook) -> Iterator[Sequence]:
        """Those who can stay away for a while, most left to read first."""
        view, now = seen.view, seen.now
        for sequence in sorted(seen.decoding, key=lambda s: -s.reads_until):
            if not sequence.generated or sequence.is_prefill_only:
                continue
            if now - sequence.moved_at < self.dwell_s:
                continue
            away_s = self.away_s(view, sequence, iteration_s=seen.iteration_s)
            if sequence.slack_s(now) > away_s + self.margin_s + self.dwell_s:
                yield sequence

    def _load(self, seen: _Outlook) -> float:
        """Share of the engine's time that all take who read here, and will once they are let in."""
        view, decoding = seen.view, seen.decoding
        readers = [*decoding, *view.parked, *view.waiting]
        prompts = [*(s for s in view.running if s.missing > 1), *view.waiting]
        token_s = seen.iteration_s / len(decoding) if decoding else 0.0
        reading = sum([s.pace_tok_s for s in readers]) * token_s
        work_s = sum([
            prefill_s(s.computed or s.cached_tokens, s.missing, seen.model)
            for s in prompts
            if not s.is_pulled
        ])  # fmt: skip
        begun = [*decoding, *view.parked]
        slack_s = sum([max(0.0, s.slack_s(seen.now)) for s in begun]) / max(1, len(begun))
        return reading + work_s / max(BACKLOG_S, slack_s)

    def _copy_s(self, view: EngineView, sequence: Sequence) -> float:
        assert view.host is not None
        blocks = view.limits.blocks_for(sequence.known)
        return blocks * view.host.block_bytes / self.bytes_per_s

    def _back_s(
        self, view: EngineView, sequence: Sequence, is_copied: bool, iteration_s: float
    ) -> float:
        assert view.limits.latency is not None
        if is_copied:
            return self._copy_s(view, sequence) + RETURN_ITERATIONS * iteration_s
        return prefill_s(0, sequence.known, view.limits.latency) + iteration_s


def _first_due(sequences: Iterable[Sequence]) -> list[Sequence]:
    return sorted(sequences, key=lambda s: s.due_at)


def _decode_work(decoding: list[Sequence]) -> WorkSum:
    return WorkSum(
        tokens=len(decoding),
        requests=len(decoding),
        past_tokens=sum([s.computed for s in decoding]),
    )


def _growth(sequence: Sequence, block_tokens: int) -> int:
    """Blocks that it takes within its next tokens."""
    return max(0, -(-(sequence.computed + AHEAD_TOKENS) // block_tokens) - sequence.blocks)


def _blocks_back(view: EngineView, sequence: Sequence) -> int:
    """Blocks that one who is parked needs to run for a while."""
    return min(view.limits.blocks_for(sequence.known + AHEAD_TOKENS), view.limits.kv_blocks)


def _waiting_blocks(view: EngineView, resumed: int) -> int:
    """Blocks of those who wait and could be let in next: as many as one iteration computes."""
    room, tokens, blocks = view.room - resumed, 0, 0
    for sequence in _first_due(view.waiting):
        if room < 1 or tokens >= view.limits.batch_tokens_max:
            break
        blocks += view.limits.blocks_for(sequence.known)
        tokens += 0 if sequence.is_pulled else sequence.missing
        room -= 1
    return blocks
