"""What is believed wrongly, and how much a cluster carries then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from readahead.core.messages import SubmitLeg
from readahead.sim.asked import AskedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.experiments.capacity_cells import MACHINES, Arm, cluster, window
from readahead.sim.experiments.capacity_promises import OFFSET_S, PACE_TOK_S, Kind, Promise
from readahead.sim.experiments.capacity_search import SHARE_MIN, highest, passed
from readahead.sim.experiments.capacity_sessions import guess_req_s, kept_share, recorded
from readahead.sim.experiments.capacity_world import (
    HOPELESS,
    LOOK_S,
    TAIL_S,
    PromisingWorld,
    Scores,
)
from readahead.sim.experiments.experiment import Cell, Row, Scope
from readahead.sim.experiments.intervals import number
from readahead.sim.experiments.windows import Window
from readahead.workload.session import Session, Turn

MACHINE = "13B-A100"
BASE = "as believed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is true, beside what the policy believes: the profile's times, a pace of 5."""

    true_scale: float = 1.0
    """Of iteration times, over those that are believed."""
    noise_sigma: float = 0.0
    """Of the logarithm of iteration times; nothing of it is believed."""
    pace_tok_s: float = PACE_TOK_S
    """At which everybody reads."""
    told_tok_s: float | None = None
    """The pace that is believed; None: the true one."""
    knows_lengths: bool = False
    kv_share: float = 1.0
    """Of KV memory that is there; this one is known."""


CASES: Mapping[str, Case] = {
    BASE: Case(),
    "times +10 %": Case(true_scale=1.1),
    "times -10 %": Case(true_scale=0.9),
    "times heavy-tailed": Case(noise_sigma=0.6),
    "pace 10": Case(pace_tok_s=10.0),
    "pace 20": Case(pace_tok_s=20.0),
    "pace believed 50 % high": Case(told_tok_s=1.5 * PACE_TOK_S),
    "pace believed 50 % low": Case(told_tok_s=0.5 * PACE_TOK_S),
    "lengths known": Case(knows_lengths=True),
    "a third of KV memory": Case(kv_share=1 / 3),
}

POLICIES: Mapping[str, Arm] = {
    "sarathi": Arm(policy="sarathi", knobs={"chunk_tokens": 512}),
    "slos-serve": Arm(policy="slos-serve"),
    "slack": Arm(policy="slack", knobs={"cap_tokens": 2048}),
    "readahead": Arm(policy="readahead"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a scope runs."""

    scenarios: Sequence[str]
    seeds: Sequence[int]
    share: float
    """Of the scenarios' windows."""
    step: float
    """Between neighbouring rates."""
    cases: Sequence[str] = tuple(CASES)


SIZES = {
    Scope.FULL: Size(scenarios=("chat", "code"), seeds=range(3), share=0.5, step=1.08),
    Scope.QUICK: Size(scenarios=("code",), seeds=range(2), share=0.25, step=1.15),
    Scope.TINY: Size(
        scenarios=("code",),
        seeds=range(2),
        share=0.04,
        step=1.4,
        cases=(BASE, "times heavy-tailed", "pace believed 50 % low"),
    ),
}
LEAST, MOST = 0.05, 5.0
"""Rates that are tried, as shares of the first guess."""


def cells(scope: Scope) -> list[Cell]:
    """A cell is all cases of one policy in one workload, from the same sessions."""
    size = SIZES[scope]
    return [
        Cell(parameters={"scenario": scenario, "policy": policy, "scope": scope.value}, seed=seed)
        for scenario in size.scenarios
        for policy in POLICIES
        for seed in size.seeds
    ]


def run_cell(cell: Cell) -> list[Row]:
    """A capacity for each case; each search begins where the first one ended."""
    size = SIZES[Scope(cell.text("scope"))]
    rows: list[Row] = []
    start = 0
    for name in size.cases:
        search = _Search(
            case=CASES[name],
            scenario=cell.text("scenario"),
            policy=cell.text("policy"),
            seed=cell.seed,
            size=size,
        )
        step = search.highest(start)
        start = step if name == BASE else start
        rows.append(
            cell.row(case=name, capacity_req_s=search.capacity_req_s(step), points=search.points)
        )
    return rows


def clusters(policy: str, case: Case) -> tuple[ClusterSpec, ClusterSpec]:
    """The one that serves, and the one by which promises are made: as believed, without noise."""
    arm = POLICIES[policy]
    knobs = dict(arm.knobs)
    if case.knows_lengths and policy == "slos-serve":
        knobs["reserve_whole"] = True
    spec = cluster(MACHINES[MACHINE], replace(arm, knobs=knobs, knows_lengths=case.knows_lengths))
    worker = spec.decode_worker
    kv_blocks = int(case.kv_share * worker.kv_blocks)
    changed = replace(
        worker, true_scale=case.true_scale, noise_sigma=case.noise_sigma, kv_blocks=kv_blocks
    )
    return replace(spec, decode_worker=changed), spec


@dataclass(slots=True, kw_only=True)
class _Search:
    """The capacity of one policy in one case."""

    case: Case
    scenario: str
    policy: str
    seed: int
    size: Size
    _rows: dict[int, Row] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """Loads that were run."""
        return len(self._rows)

    def highest(self, start: int) -> int:
        """The highest step that passes."""
        return highest(
            lambda step: passed(self._at(step), Kind.READING, SHARE_MIN),
            start,
            least=self._step(LEAST),
            most=self._step(MOST),
        )

    def capacity_req_s(self, step: int) -> float:
        """Between the rate that passed and the next one, where the share crosses its bound."""
        if step < self._step(LEAST):
            return 0.0
        rate_req_s = self._rate_req_s(step)
        if step >= self._step(MOST):
            return rate_req_s
        bad = self._at(step + 1)
        above = number(self._at(step), "attained_reading") - SHARE_MIN
        below = SHARE_MIN - number(bad, "attained_reading")
        if bad["is_cut"] or below <= 0:
            return rate_req_s
        return float(rate_req_s * self.size.step ** (above / (above + below)))

    def _step(self, share: float) -> int:
        return round(math.log(share) / math.log(self.size.step))

    def _rate_req_s(self, step: int) -> float:
        return float(guess_req_s(MACHINE, self.scenario) * self.size.step**step)

    def _at(self, step: int) -> Row:
        if step not in self._rows:
            scored = window(self.scenario, self.size.share)
            sessions = recorded(MACHINE, self.scenario, self.seed).until(
                scored.end_s,
                rate_req_s=self._rate_req_s(step),
                kept_share=kept_share(MACHINE, self.scenario),
            )
            spec, believed = clusters(self.policy, self.case)
            scores = PacedScores(believed, sessions, scored, pace_tok_s=self.case.pace_tok_s)
            told_tok_s = self.case.told_tok_s or self.case.pace_tok_s
            world = MistakenWorld(
                spec, sessions, scores=scores, told_tok_s=told_tok_s, seed=self.seed
            )
            self._rows[step] = _lived(world, scores, scored)
        return self._rows[step]


def _lived(world: MistakenWorld, scores: Scores, scored: Window) -> Row:
    """Runs until all scored answers have ended, or the load is known to be too much."""
    kind, now_s, is_cut = Kind.READING, 0.0, False
    while True:
        now_s += LOOK_S
        world.run(now_s)
        for asked in world.asked.values():
            scores.waits(asked, now_s)
        is_cut = scores.missed(kind) > HOPELESS
        if scores.is_over or is_cut or now_s > max(scored.end_s, scores.due_s((kind,))) + TAIL_S:
            break
    return {**scores.numbers(now_s, scored.last_s - scored.start_s), "is_cut": is_cut}


class PacedScores(Scores):
    """Judges readers by another pace."""

    def __init__(
        self, spec: ClusterSpec, sessions: Sequence[Session], window: Window, *, pace_tok_s: float
    ) -> None:
        super().__init__(spec, sessions, window)
        self._pace_tok_s = pace_tok_s

    def _promise(self, turn: Turn, prompt_tokens: int, kind: Kind) -> Promise:
        found = super()._promise(turn, prompt_tokens, kind)
        return at_pace(found, self._pace_tok_s) if found.kind is Kind.READING else found


def at_pace(promise: Promise, pace_tok_s: float) -> Promise:
    """The reading SLO of somebody who reads so fast."""
    token_s = 1 / pace_tok_s
    return replace(promise, first_s=OFFSET_S + token_s, token_s=token_s)


class MistakenWorld(PromisingWorld):
    """A world whose engines are told another pace than the true one."""

    def __init__(
        self,
        spec: ClusterSpec,
        sessions: Sequence[Session],
        *,
        scores: Scores,
        told_tok_s: float,
        seed: int,
    ) -> None:
        self._told_tok_s = told_tok_s
        super().__init__(spec, sessions, scores=scores, told=Kind.READING, seed=seed)

    def _submit(self, command: SubmitLeg) -> None:
        super()._submit(command)
        asked: AskedRequest | None = self.asked.get(command.request_id)
        leg = self.engines[command.worker_id].find((command.request_id, command.attempt))
        if asked is None or leg is None or not asked.turn.has_reader:
            return
        leg.sequence.pace_tok_s = self._told_tok_s
        leg.sequence.reads_until = asked.arrival_s + OFFSET_S + 1 / self._told_tok_s
