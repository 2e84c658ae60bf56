"""When a policy that decides at intervals decides anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from readahead.core.planning.policy import EngineView
from readahead.core.planning.sequence import Sequence


@dataclass(slots=True, kw_only=True)
class Quantum:
    """Counts iterations since the last decision, those carried out in one go included.

    They are counted by the tokens of a witness that decodes, because a plan that is repeated asks
    nobody; where nobody decodes, each question is one iteration. An arrival or an end is a reason
    to decide at once; the decision's own preemptions and admissions are not. One that leaves the
    engine idle holds for no time: what it could not know, such as blocks that were held for others
    and are free now, is the only reason to ask again.
    """

    iterations: int
    _left: int = 0
    _known: frozenset[Sequence] = field(default_factory=frozenset)
    _witness: Sequence | None = None
    _generated: int = 0
    _is_idle: bool = False

    def is_over(self, view: EngineView) -> bool:
        """Whether it is time to decide; if so, a new quantum begins. Ask once per plan."""
        passed = 1
        if self._witness is not None:
            passed = max(1, self._witness.generated - self._generated)
        self._left -= passed
        known = frozenset((*view.running, *view.waiting))
        is_over = self._left <= 0 or self._is_idle or known != self._known
        if is_over:
            self._left, self._known = self.iterations, known
        return is_over

    def watch(self, entries: list[tuple[Sequence, int]]) -> None:
        """Notes whose tokens count the iterations until the next question."""
        self._is_idle = not entries
        self._witness = next((s for s, _ in entries if s.blocks and s.missing == 1), None)
        if self._witness is not None:
            self._generated = self._witness.generated

    @property
    def left(self) -> int:
        """Iterations for which the decision holds, the next one included."""
        return self._left
