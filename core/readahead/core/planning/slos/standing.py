"""Who is accepted and who is not, from a sequence's arrival to its end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from readahead.core.planning.policy import EngineView
from readahead.core.planning.sequence import Sequence
from readahead.core.planning.slos.lengths import AnswerLengths
from readahead.core.promise import Verdict
from readahead.core.reading.curves import SLO_TOLERANCE


@dataclass(slots=True, eq=False)
class Standing:
    """One sequence, as the admission sees it."""

    sequence: Sequence
    verdict: Verdict
    pace_tok_s: float
    """Of its stage when it was looked at last."""
    due_at: float
    """When its prompt is to be computed, seconds on the engine's clock."""
    token_due_at: float
    """When its next token was due when it was looked at last."""
    is_missed: bool = False
    """A token was late, beyond tolerance, while it was declined: it would keep no promise."""


@dataclass(slots=True)
class Groups:
    """Everybody who is here, by what the next iteration may do with him."""

    decoding: list[Sequence] = field(default_factory=list)
    """Accepted ones who decode, in order of admission."""
    prompts: list[Standing] = field(default_factory=list)
    """Accepted ones whose prompt is not computed."""
    pulls: list[Sequence] = field(default_factory=list)
    spare_decoding: list[Sequence] = field(default_factory=list)
    """The same of best-effort ones."""
    spare_prompts: list[Sequence] = field(default_factory=list)
    """Best-effort ones with a prompt, those let in first."""
    new: list[Standing] = field(default_factory=list)


@dataclass(slots=True)
class Ledger:
    """Verdicts of everybody who is here."""

    offset_s: float = 0.0
    """By how much later first tokens may come than they are due."""
    lengths: AnswerLengths = field(default_factory=AnswerLengths)
    _standings: dict[Sequence, Standing] = field(default_factory=dict)

    def look(self, view: EngineView, now: float) -> bool:
        """Takes in who is here. Returns whether somebody came, ended, or changed his pace."""
        known, has_changed = self._standings, False
        for sequence in (*view.running, *view.waiting):
            standing = known.get(sequence)
            if standing is None:
                verdict = sequence.verdict
                if verdict is Verdict.NEW and (sequence.is_pulled or sequence.generated):
                    verdict = Verdict.ACCEPTED  # it was taken there, if nothing else is said
                known[sequence] = Standing(
                    sequence,
                    verdict,
                    sequence.pace_tok_s,
                    sequence.due_at,
                    self.due_at(sequence),
                )
                has_changed = True
                continue
            if standing.pace_tok_s != sequence.pace_tok_s:
                standing.pace_tok_s = sequence.pace_tok_s
                has_changed = True
            if standing.verdict is Verdict.BEST_EFFORT:
                due_at = standing.token_due_at
                slip_s = SLO_TOLERANCE * (due_at - sequence.arrived_at)
                standing.is_missed |= due_at + slip_s < now
                standing.token_due_at = self.due_at(sequence)
        if len(known) > len(view.running) + len(view.waiting):
            has_changed |= self._forget()
        return has_changed

    def tell(self) -> None:
        """Has each sequence know its verdict."""
        for sequence, standing in self._standings.items():
            sequence.verdict = standing.verdict

    def due_at(self, sequence: Sequence) -> float:
        """When its next token is due."""
        return sequence.due_at + (0.0 if sequence.generated else self.offset_s)

    def _forget(self) -> bool:
        """Those who have ended; some others may be out of sight while their KV is pulled."""
        ended = [sequence for sequence in self._standings if sequence.is_ended]
        for sequence in ended:
            del self._standings[sequence]
            if sequence.generated and not sequence.is_prefill_only:
                self.lengths.add(sequence.generated)
        return bool(ended)

    def groups(self, view: EngineView) -> Groups:
        """Everybody who is here; best-effort ones that run before those that wait."""
        found, known = Groups(), self._standings
        for sequence in view.running:
            standing = known[sequence]
            if standing.verdict is Verdict.BEST_EFFORT:
                is_decoding = sequence.missing == 1
                (found.spare_decoding if is_decoding else found.spare_prompts).append(sequence)
            elif standing.verdict is Verdict.NEW:
                found.new.append(standing)
            elif sequence.missing == 1:
                found.decoding.append(sequence)
            else:
                found.prompts.append(standing)
        for sequence in view.waiting:
            standing = known[sequence]
            if sequence.is_pulled:
                found.pulls.append(sequence)
            elif standing.verdict is Verdict.NEW:
                found.new.append(standing)
            elif standing.verdict is Verdict.ACCEPTED:
                found.prompts.append(standing)
            else:
                found.spare_prompts.append(sequence)
        return found

    def merit(self, sequence: Sequence) -> float:
        """By which best-effort prompts are sorted: who may still be in time comes first, first due
        first; all who cannot be are alike."""
        standing = self._standings[sequence]
        return math.inf if standing.is_missed else standing.token_due_at

    def standing(self, sequence: Sequence) -> Standing:
        """Of one who is here."""
        return self._standings[sequence]

    def reserved(self, sequence: Sequence, *, is_whole: bool) -> int:
        """Tokens for which one who is accepted is given room: those of the longest answer that he
        may get, or of the one that is expected."""
        most = sequence.output_tokens_max
        if sequence.is_prefill_only:
            return sequence.prompt_tokens
        if not is_whole:
            most = self.lengths.expected(sequence.generated, most=most)
        return max(sequence.prompt_tokens + most, sequence.known + 1)
