"""Readers' slack, spent on prompts: slack batching and the mechanisms that make it pay."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field, replace
from typing import ClassVar

from readahead.core.latency.iteration import LatencyModel
from readahead.core.planning.chunks import WorkSum, prefill_s, saturated_tokens
from readahead.core.planning.knobs import check_knobs, knob, switch
from readahead.core.planning.parking import AHEAD_TOKENS, Moves, SolventParking
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.prompts import Align, Bound, fill
from readahead.core.planning.readers import Readers, decode_entries, readers_of, richest_first
from readahead.core.planning.sacrifice import Job, moore_hodgson
from readahead.core.planning.sequence import Sequence
from readahead.core.planning.sitting_out import pays

READERS_SHARE_MAX = 0.9
"""Of an engine's time. Readers who need more leave prompts a tenth by this reckoning, since a
speed of nothing would sacrifice every prompt, and so order nothing."""

WASTE = 0.1
"""Of an iteration's time, over what its prompt tokens alone take: from there on a longer one hardly
computes more, and whoever comes meanwhile waits for its end. Tried on bursts of code, seeds 101 and
102: within 0.7 % of promises of the best for an 8B model, within 1.7 % for one of 13B."""
CAP_TOKENS = 1024
"""Prompt tokens in an iteration where there is no model to say."""

LENGTHS_MAX = 4096
"""Prefill times that are remembered; some prompts differ only in what is computed already."""


@dataclass(slots=True, kw_only=True)
class Readahead:
    """Batches no longer than the least slack; prompts by a re-planned sacrifice set.

    A prompt is due when its first token is, and the readers' next tokens bound how long an
    iteration may be. Where prompts cannot all be in time, as few as possible are late, and the
    verdict is made anew for each iteration. An iteration goes on as far as none of the prompts
    that end in it becomes late. While a prompt can be computed, readers with plenty left to read
    sit out if that pays, and, where the engine can park, give up their memory for one that does
    not fit. All switches off, it is plain slack batching in the order of due times.
    """

    name: ClassVar[str] = "readahead"
    sacrifice: bool = switch(True, meaning="Re-planned sacrifice set; off: order of due times.")
    align: bool = switch(
        True, meaning="Iterations end while their prompts are in time; off: filled."
    )
    sit_out: bool = switch(
        True, meaning="Rich readers sit out while a prompt is computed, if that pays."
    )
    cap_s: float = knob(0.25, least=0.01, most=5, meaning="Longest iteration, seconds.")
    margin: float = knob(0.95, least=0.1, most=1, meaning="Share of the least slack that is used.")
    cap_tokens: int = knob(
        0,
        least=0,
        most=16384,
        meaning="Prompt tokens in an iteration; 0: as many as more would hardly be faster.",
    )
    rich_s: float = knob(2.0, least=0, most=60, meaning="Unread seconds above which one is rich.")
    stretch: float = knob(
        20.0,
        least=0,
        most=1000,
        meaning="Sacrificed prompts go by due time + stretch x prefill time: 0 is first due "
        "first, much is shortest first.",
    )
    patience_s: float = knob(
        30.0,
        least=0.1,
        most=3600,
        meaning="Seconds after its due time from which the oldest prompt goes first.",
    )
    least_tokens: int = knob(
        64, least=0, most=1024, meaning="Tokens that it gets then, whatever the slack."
    )
    park: bool = switch(False, meaning="Rich readers are parked while memory is short.")
    park_margin_s: float = knob(
        0.5, least=0, most=60, meaning="Slack that one who is parked keeps beyond the way back."
    )
    park_dwell_s: float = knob(
        1.0, least=0, most=600, meaning="Nobody is parked for less, or so soon after a move."
    )
    park_share: float = knob(
        2.0, least=0, most=100, meaning="Most that is parked, in times of the device's KV memory."
    )
    park_load: float = knob(
        0.9,
        least=0,
        most=1000,
        meaning="Share of the engine's time that readers may need for others to be let in so; "
        "1000: whatever they need.",
    )
    copy_gb_s: float = knob(
        2.0, least=0.01, most=1000, meaning="Speed of copies to host memory, GB/s."
    )
    _lengths: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)
    _model: LatencyModel | None = field(default=None, repr=False)
    _saturated: tuple[LatencyModel | None, int] = field(default=(None, CAP_TOKENS), repr=False)
    _parking: SolventParking | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_knobs(self)
        if self.park:
            self._parking = SolventParking(
                bytes_per_s=self.copy_gb_s * 1e9,
                margin_s=self.park_margin_s,
                dwell_s=self.park_dwell_s,
                share_max=self.park_share,
                load_max=self.park_load,
            )

    def choose(self, view: EngineView, now: float) -> Choice:
        """The next iteration's choice."""
        if self._parking is None or view.host is None:
            return self._batch(view, now)
        moves = self._parking.moves(view, now)
        choice = self._batch(_after(view, moves), now)
        holds_for = min(choice.holds_for, _quiet_for(view, moves))
        return replace(choice, park=moves.park, resume=moves.resume, holds_for=holds_for)

    def _batch(self, view: EngineView, now: float) -> Choice:
        readers = readers_of(view, now, rich_s=self.rich_s if self.sit_out else float("inf"))
        pulls, prompts = _pending(view, readers)
        if not prompts or (not readers.begun and _nobody_fits(view, prompts)):
            return self._decode_all(view, readers, pulls, holds=True)
        tokens_max = min(self._cap_tokens(view.limits.latency), view.limits.batch_tokens_max)
        bound = Bound(limit_s=self.cap_s, tokens_max=tokens_max)
        if len(readers.poor) < len(readers.decoding) and not pays(
            view, readers, prompts, bound=bound, now=now
        ):
            readers = readers.everybody(now)
        order, is_aged = self._order(view, readers, prompts, now)
        work = WorkSum()
        decodes, _ = decode_entries(readers.poor, work, tokens_max=view.limits.batch_tokens_max)
        bound = Bound(
            limit_s=min(self.cap_s, self.margin * readers.least_slack_s),
            tokens_max=min(tokens_max, view.limits.batch_tokens_max - len(decodes)),
            tokens_least=self.least_tokens if is_aged else 0,
        )
        align = Align(now=now) if self.align else None
        chunks = fill(view, order, work=work, bound=bound, align=align)
        if not chunks and (self._lets_all_decode(view, readers, order) or not decodes):
            return self._decode_all(view, readers, pulls, holds=False)
        return Choice(entries=[*decodes, *pulls, *chunks], victims=richest_first(view), holds_for=1)

    def _cap_tokens(self, model: LatencyModel | None) -> int:
        if self.cap_tokens or model is None:
            return self.cap_tokens or CAP_TOKENS
        if self._saturated[0] is not model:
            self._saturated = (model, saturated_tokens(model, waste=WASTE))
        return self._saturated[1]

    def _decode_all(
        self, view: EngineView, readers: Readers, pulls: list[tuple[Sequence, int]], *, holds: bool
    ) -> Choice:
        decodes, is_all = decode_entries(
            readers.decoding, WorkSum(), tokens_max=view.limits.batch_tokens_max
        )
        entries = [*decodes, *pulls]
        victims = richest_first(view)
        if holds and is_all:
            return Choice(entries=entries, victims=victims)
        return Choice(entries=entries, victims=victims, holds_for=1)

    def _lets_all_decode(
        self, view: EngineView, readers: Readers, order: Ordered[Sequence]
    ) -> bool:
        """Whether the first prompt waits for memory, so that sitting out would not help it."""
        return not readers.begun and _nobody_fits(view, order[:1])

    def _order(
        self, view: EngineView, readers: Readers, prompts: list[Sequence], now: float
    ) -> tuple[list[Sequence], bool]:
        """Prompts in the order in which they are computed; whether the first one is aged."""
        oldest = min(prompts, key=lambda s: s.due_at)
        is_aged = now - oldest.due_at > self.patience_s
        model = view.limits.latency
        if not self.sacrifice or model is None:
            return sorted(prompts, key=lambda s: s.due_at), is_aged
        speed = 1 - self._readers_share(readers, model)
        jobs = [Job(s.due_at - now, self._length_s(s, model) / speed) for s in prompts]
        verdict = moore_hodgson(jobs)
        late = sorted(
            verdict.sacrificed, key=lambda i: jobs[i].due_s + self.stretch * jobs[i].length_s
        )
        order = [prompts[i] for i in (*verdict.kept, *late)]
        if is_aged:
            order.remove(oldest)
            order.insert(0, oldest)
        return order, is_aged

    def _readers_share(self, readers: Readers, model: LatencyModel) -> float:
        """Share of the engine's time that the poor need to go on reading."""
        poor = readers.poor
        if not poor:
            return 0.0
        work = WorkSum()
        decode_entries(poor, work, tokens_max=len(poor))
        pace_tok_s = sum([s.pace_tok_s for s in poor]) / len(poor)
        return min(READERS_SHARE_MAX, pace_tok_s * work.seconds(model))

    def _length_s(self, sequence: Sequence, model: LatencyModel) -> float:
        if model is not self._model or len(self._lengths) > LENGTHS_MAX:
            self._model, self._lengths = model, {}
        key = (sequence.computed or sequence.cached_tokens, sequence.missing)
        length_s = self._lengths.get(key)
        if length_s is None:
            length_s = self._lengths[key] = prefill_s(*key, model)
        return length_s


def _after(view: EngineView, moves: Moves) -> EngineView:
    """What is left for everybody else once the moves are made."""
    gone = {park.sequence for park in moves.park}
    return replace(
        view,
        blocks_free=view.blocks_free - moves.reserved_blocks,
        running=[s for s in view.running if s not in gone] if gone else view.running,
        pulling=view.pulling + len(moves.resume),
    )


def _quiet_for(view: EngineView, moves: Moves) -> int:
    """For how many iterations nobody would be moved: while nobody is parked or waits for memory,
    until those who run could be short of it."""
    if moves.park or moves.resume or view.parked or (view.waiting and view.room > 0):
        return 1
    rounds = view.blocks_free // max(1, len(view.running))
    return max(1, rounds * view.limits.block_tokens - AHEAD_TOKENS)


def _pending(
    view: EngineView, readers: Readers
) -> tuple[list[tuple[Sequence, int]], list[Sequence]]:
    """Those to be pulled, first due first, and all prompts that are not computed."""
    waiting = [s for s in view.waiting if not s.is_pulled]
    if len(waiting) == len(view.waiting):
        return [], [*readers.begun, *waiting]
    pulls = sorted((s for s in view.waiting if s.is_pulled), key=lambda s: s.due_at)
    blocks = sum(view.limits.blocks_for(s.known) for s in pulls)
    if len(pulls) >= view.room or blocks > view.blocks_free:
        waiting = []  # no prompt passes those whose prompts are computed elsewhere
    return [(sequence, 0) for sequence in pulls], [*readers.begun, *waiting]


def _nobody_fits(view: EngineView, prompts: Ordered[Sequence]) -> bool:
    """Whether no waiting prompt can be let in; decoding never changes that."""
    if view.room < 1:
        return True
    least = min([s.known for s in prompts])
    return view.limits.blocks_for(least) > view.blocks_free
