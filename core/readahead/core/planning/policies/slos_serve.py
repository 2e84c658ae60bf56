"""SLOs-Serve: promises to whom they can be kept, and what is left over for the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from readahead.core.planning.knobs import check_knobs, knob, switch
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.sequence import Sequence
from readahead.core.planning.slos.admission import STEPS_MAX
from readahead.core.planning.slos.formation import Shape, form
from readahead.core.planning.slos.rounds import RoundCounts, Rounds
from readahead.core.planning.slos.standing import Groups, Ledger
from readahead.core.promise import Verdict


@dataclass(slots=True, kw_only=True)
class SlosServe:
    """Accepts the requests of greatest number whose promises can all be kept; serves others later.

    A request is promised its first token when it is due, and each further one at its pace. When
    somebody comes, ends or goes on to another stage, the dynamic programme decides anew about
    those who are new. Who is accepted stays so to the end. The others are best-effort: they get
    time and memory that accepted ones leave, give it back when those need it, the last let in
    first, and are accepted after all if there is room before they are late.

    Ref: [SLOs-Serve]
    Differs: answers' lengths are not known, so that memory is kept for as long an answer as those
    before became; only the next token's due time is known, which moves on with one that was late;
    batches follow due times instead of a plan's list; best-effort ones age, so that all of them
    end; no drafts are verified.
    """

    name: ClassVar[str] = "slos-serve"
    soft_admission: bool = switch(
        True, meaning="Accept only what can be kept; off: everybody, in the order of due times."
    )
    promote: bool = switch(
        True, meaning="Ask again for declined ones until they are late; off: the first verdict."
    )
    dynamic_batch: bool = switch(
        True, meaning="A batch lasts until the earliest due time; off: for the tightest pace."
    )
    slack_tiers: bool = switch(
        True, meaning="Plan with a looser pace for whoever is that much ahead, as the source does."
    )
    reserve_whole: bool = switch(
        False, meaning="Keep memory for the longest answer allowed; off: for the expected one."
    )
    margin_s: float = knob(
        0.001, least=0, most=1, meaning="By which due times and paces are tightened, seconds."
    )
    cap_s: float = knob(0.1, least=0.01, most=5, meaning="Longest iteration, seconds.")
    offset_s: float = knob(
        0.0, least=0, most=60, meaning="By how much later than due a first token is promised."
    )
    patience_s: float = knob(
        30.0, least=0.1, most=3600, meaning="Seconds from which the oldest best-effort one is aged."
    )
    least_tokens: int = knob(
        16, least=1, most=1024, meaning="Prompt tokens that it gets then in any iteration."
    )
    asked_max: int = knob(32, least=1, most=1000, meaning="Requests in a round, those due first.")
    steps_max: int = knob(
        STEPS_MAX,
        least=0,
        most=1_000_000,
        meaning="States after which a round's search gives up and the greedy rule decides.",
    )
    _ledger: Ledger = field(init=False, repr=False)
    _rounds: Rounds = field(init=False, repr=False)
    _shape: Shape = field(init=False, repr=False)
    _aged: Sequence | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_knobs(self)
        self._ledger = Ledger(offset_s=self.offset_s)
        self._rounds = Rounds(
            margin_s=self.margin_s,
            promotes=self.promote,
            slack_tiers=self.slack_tiers,
            reserves_whole=self.reserve_whole,
            least_tokens=self.least_tokens,
            asked_max=self.asked_max,
            steps_max=self.steps_max,
        )
        self._shape = Shape(
            cap_s=self.cap_s,
            margin_s=self.margin_s,
            is_dynamic=self.dynamic_batch,
            least_tokens=self.least_tokens,
        )

    @property
    def counts(self) -> RoundCounts:
        """Rounds so far."""
        return self._rounds.counts

    def verdict(self, sequence: Sequence) -> Verdict:
        """What was decided about one who is here."""
        return self._ledger.standing(sequence).verdict

    def choose(self, view: EngineView, now: float) -> Choice:
        """The next iteration's choice."""
        has_changed = self._ledger.look(view, now)
        groups = self._ledger.groups(view)
        aged = self._aged = self._oldest(groups, now)
        if has_changed:
            if self.soft_admission and view.limits.latency is not None:
                self._rounds.decide(view, self._ledger, groups, aged, now)
                self._ledger.tell()
            else:
                for standing in groups.new:
                    standing.verdict = Verdict.ACCEPTED
            groups = self._ledger.groups(view)
        if self.promote:
            groups.spare_prompts.sort(key=self._ledger.merit)
        if aged is not None and self.verdict(aged) is Verdict.ACCEPTED:
            self._aged = None
        return form(
            view,
            groups,
            self._shape,
            aged=self._aged,
            growth_blocks=self._rounds.growth_blocks,
            now=now,
        )

    def _oldest(self, groups: Groups, now: float) -> Sequence | None:
        """The best-effort one whose patience has ended; the same one until he is through."""
        spare = [*groups.spare_decoding, *groups.spare_prompts]
        if not spare or any(sequence is self._aged for sequence in spare):
            return self._aged if spare else None
        oldest = min(spare, key=lambda sequence: sequence.arrived_at)
        return oldest if now - oldest.arrived_at > self.patience_s else None
