"""A cluster that knows what it promised, and what of it was kept: one load, one point."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from readahead.core.messages import SubmitLeg
from readahead.core.planning.policy import Plan
from readahead.core.planning.sequence import Sequence as EngineSequence
from readahead.core.reading.benefit import DEFAULT_ALPHA
from readahead.core.reading.timeline import Outcome
from readahead.ruler.run import Floats
from readahead.sim.asked import AskedRequest, EndedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.engine import Engine
from readahead.sim.experiments.capacity_promises import PACE_TOK_S, Kind, Promise, promise
from readahead.sim.experiments.experiment import Value
from readahead.sim.experiments.windows import Window
from readahead.sim.run import zero_load_ttft_s
from readahead.sim.stretch import Stretch
from readahead.sim.world import World
from readahead.workload.session import Session, Turn

LOOK_S = 5.0
"""How often it is looked whether a run has said all that it can."""
TAIL_S = 20.0
"""What the last scored answer may end after the last due time. Ref: [SLOs-Serve]."""
HOPELESS = 0.4
"""A run is broken off once so large a share of its scored requests is missed: its load is far
beyond the capacity, and what the share would be in the end is not needed."""

PATIENT_S = 7200.0
"""When a patient run ends at last."""


@dataclass(slots=True)
class _Asked:
    """A scored session: attained if each of its turns was."""

    turns: int
    met: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    ended: int = 0


class Scores:
    """What those who came in the window got, under both kinds of promise."""

    def __init__(self, spec: ClusterSpec, sessions: Iterable[Session], window: Window) -> None:
        self._spec = spec
        self._asked = {
            one.session_id: _Asked(len(one.turns))
            for one in sessions
            if window.start_s <= one.arrival_s < window.last_s
        }
        self._first_missed: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        self._last_due_s = dict.fromkeys(Kind, 0.0)
        self._last_end_s = 0.0
        self._idle_s: list[float] = []
        self._tokens = 0
        self._open = len(self._asked)
        self._alone_s: dict[int, float] = {}

    @property
    def requests(self) -> int:
        """How many are scored."""
        return len(self._asked)

    @property
    def is_over(self) -> bool:
        """Whether all of them have ended."""
        return self._open == 0

    def promised(self, asked: AskedRequest, kind: Kind) -> Promise:
        """What one who is being served was promised."""
        return self._promise(asked.turn, asked.prompt_tokens, kind)

    def _promise(self, turn: Turn, prompt_tokens: int, kind: Kind) -> Promise:
        alone_s = self._alone_s.get(prompt_tokens)
        if alone_s is None:
            alone_s = self._alone_s[prompt_tokens] = zero_load_ttft_s(self._spec, prompt_tokens)
        return promise(turn, kind, zero_load_ttft_s=alone_s)

    def ended(self, request: EndedRequest, turn: Turn) -> None:
        """One of them has ended, or somebody else."""
        asked = self._asked.get(request.session_id)
        if asked is None:
            return
        times_s: Floats = np.array(request.token_times_s) - request.arrival_s
        is_whole = request.outcome is Outcome.FINISHED
        self._last_end_s = max(self._last_end_s, request.ended_s)
        asked.ended += 1
        if not is_whole or asked.ended == asked.turns:
            self._open -= 1
        for kind in Kind:
            promised = self._promise(turn, request.prompt_tokens, kind)
            due_s = request.arrival_s + promised.last_s(turn.output_tokens)
            self._last_due_s[kind] = max(self._last_due_s[kind], due_s)
            if is_whole and promised.is_met(times_s):
                asked.met[kind] += 1
            else:
                self._first_missed[kind].add(request.session_id)
        if turn.has_reader:
            self._tokens += len(times_s)
            self._idle_s.append(_idle_s(times_s))

    def waits(self, asked: AskedRequest, now_s: float) -> None:
        """One who is under way: whoever should have a first token and has none is missed."""
        if asked.session.session_id not in self._asked:
            return
        for kind in Kind:
            promised = self.promised(asked, kind)
            due_s = asked.arrival_s + promised.last_s(asked.output_tokens)
            self._last_due_s[kind] = max(self._last_due_s[kind], due_s)
            if not asked.stretches and now_s > asked.arrival_s + 1.1 * promised.first_s:
                self._first_missed[kind].add(asked.session.session_id)

    def missed(self, kind: Kind) -> float:
        """The share that is known to be missed by now."""
        return len(self._first_missed[kind]) / max(1, self.requests)

    def due_s(self, kinds: Iterable[Kind]) -> float:
        """When the last token that is known of is due."""
        return max(self._last_due_s[kind] for kind in kinds)

    def numbers(self, now_s: float, span_s: float) -> dict[str, Value]:
        """All of it. Who has not ended by now is missed, and his answer ends now at best."""
        found: dict[str, Value] = {"requests": self.requests, "unended": self._open}
        end_s = now_s if self._open else self._last_end_s
        for kind in Kind:
            met = sum(asked.met[kind] == asked.turns for asked in self._asked.values())
            found[f"attained_{kind}"] = met / self.requests if self.requests else 0.0
            found[f"tail_{kind}_s"] = end_s - self._last_due_s[kind]
        idle_s = np.array(self._idle_s or [math.nan])
        lost = DEFAULT_ALPHA * PACE_TOK_S * math.fsum(self._idle_s)
        found["f1_tok_s"] = (self._tokens - lost) / span_s
        found["idle_p99_s"] = float(np.percentile(idle_s, 99))
        return found


def _idle_s(times_s: Floats) -> float:
    """How long a reader waited in all, from when he asked. Ref: [SmoothGoodput]."""
    if not len(times_s):
        return 0.0
    due_s = np.arange(1, len(times_s) + 1) / PACE_TOK_S
    return max(0.0, float((times_s - due_s).max()))


class PromisingWorld(World):
    """A world whose engines are told what each request was promised, in due times."""

    def __init__(
        self,
        spec: ClusterSpec,
        sessions: Iterable[Session],
        *,
        scores: Scores,
        told: Kind,
        seed: int,
    ) -> None:
        self._scores, self._told = scores, told
        self._thinking: dict[EngineSequence, tuple[int, float]] = {}
        self._turns: dict[str, tuple[Turn, ...]] = {}
        super().__init__(spec, self._noted(sessions), sink=self, seed=seed)

    def _noted(self, sessions: Iterable[Session]) -> Iterable[Session]:
        for session in sessions:
            self._turns[session.session_id] = session.turns
            yield session

    def _submit(self, command: SubmitLeg) -> None:
        super()._submit(command)
        leg = self.engines[command.worker_id].find((command.request_id, command.attempt))
        asked = self.asked.get(command.request_id)
        if leg is None or asked is None:
            return  # it was refused
        promised, sequence = self._scores.promised(asked, self._told), leg.sequence
        sequence.pace_tok_s = 1 / promised.told_token_s
        sequence.reads_until = asked.arrival_s + promised.first_s
        if promised.thinking_tokens:
            self._thinking[sequence] = (promised.thinking_tokens, 1 / promised.token_s)

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        """Engines see where an answer's thinking ends, and go on at the answer's pace."""
        if not self._thinking:
            return
        for sequence, _ in plan.entries:
            stage = self._thinking.get(sequence)
            if stage is not None and sequence.generated >= stage[0]:
                sequence.pace_tok_s = stage[1]
                del self._thinking[sequence]

    def ended(self, request: EndedRequest) -> None:
        """Takes an ended request, as its own sink."""
        self._scores.ended(request, self._turns[request.session_id][request.turn])


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load on one cluster."""

    spec: ClusterSpec
    told: Kind
    kinds: tuple[Kind, ...]
    """The promises that the result is used for."""
    window: Window
    seed: int
    is_patient: bool = False
    """Whether it goes on until everybody has his answer, however late."""

    def numbers(self, sessions: list[Session], *, whole: ClusterSpec) -> dict[str, Value]:
        """Runs it. `sessions` end with the window; promises are those of the cluster `whole`.

        Load goes on to the window's end, or until all scored answers have ended; a run that is
        not patient also ends once the last of them is too late, or too many are missed.
        """
        scores = Scores(whole, sessions, self.window)
        world = PromisingWorld(self.spec, sessions, scores=scores, told=self.told, seed=self.seed)
        now_s, is_cut = 0.0, False
        while True:
            now_s += LOOK_S
            world.run(now_s)
            for asked in world.asked.values():
                scores.waits(asked, now_s)
            if scores.is_over:
                break
            if self.is_patient and now_s < PATIENT_S:
                continue
            is_cut = min(scores.missed(kind) for kind in self.kinds) > HOPELESS
            if is_cut or now_s > max(self.window.end_s, scores.due_s(self.kinds)) + TAIL_S:
                break
        span_s = self.window.last_s - self.window.start_s
        found = scores.numbers(now_s, span_s)
        return {**found, "is_cut": is_cut, "actions": world.kernel.done}
