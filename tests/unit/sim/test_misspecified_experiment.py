"""Beliefs that do not hold: the world has the truth, the planner does not, and both are as said."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from readahead.sim.experiments.capacity_cells import window
from readahead.sim.experiments.capacity_promises import PACE_TOK_S, Kind, promise
from readahead.sim.experiments.capacity_sessions import guess_req_s, kept_share, recorded
from readahead.sim.experiments.experiment import Row, Scope, Verdict
from readahead.sim.experiments.intervals import number
from readahead.sim.experiments.misspecified import EXPERIMENT, LEAST_KEPT
from readahead.sim.experiments.misspecified_cells import (
    BASE,
    CASES,
    MACHINE,
    POLICIES,
    SIZES,
    Case,
    MistakenWorld,
    PacedScores,
    at_pace,
    clusters,
)
from readahead.sim.experiments.runner import run_cells


def test_planners_believe_the_profile_whatever_is_true() -> None:
    believed = clusters("slack", CASES[BASE])[0].decode_worker
    for name in ("times +10 %", "times -10 %", "times heavy-tailed"):
        spec, whole = clusters("slack", CASES[name])
        assert spec.decode_worker.limits() == believed.limits()
        assert (spec.decode_worker.true_scale, spec.decode_worker.noise_sigma) != (1.0, 0.0)
        assert whole.decode_worker == believed


def test_a_third_of_the_memory_is_known_to_be_one() -> None:
    whole, third = (clusters("slack", CASES[name])[0] for name in (BASE, "a third of KV memory"))
    blocks = third.decode_worker.limits().kv_blocks
    assert blocks == whole.decode_worker.limits().kv_blocks // 3


def test_lengths_are_told_where_they_are_known() -> None:
    assert not clusters("slos-serve", CASES[BASE])[0].tells_true_length
    assert clusters("slos-serve", CASES["lengths known"])[0].tells_true_length


@pytest.mark.parametrize("case", [CASES["pace believed 50 % low"], CASES["pace 20"], CASES[BASE]])
def test_engines_are_told_one_pace_and_readers_judged_by_another(case: Case) -> None:
    spec, whole = clusters("readahead", case)
    scored = window("code", 0.04)
    sessions = recorded(MACHINE, "code", 1).until(
        scored.end_s,
        rate_req_s=guess_req_s(MACHINE, "code"),
        kept_share=kept_share(MACHINE, "code"),
    )
    scores = PacedScores(whole, sessions, scored, pace_tok_s=case.pace_tok_s)
    told_tok_s = case.told_tok_s or case.pace_tok_s
    world = MistakenWorld(spec, sessions, scores=scores, told_tok_s=told_tok_s, seed=1)
    seen = 0
    for at_s in range(1, 8):
        world.run(float(at_s))
        for asked in world.asked.values():
            promised = scores.promised(asked, Kind.READING)
            assert promised.token_s == pytest.approx(1 / case.pace_tok_s)
            assert promised.first_s == pytest.approx(1 + 1 / case.pace_tok_s)
            assert asked.engine is not None
            leg = asked.engine.find((asked.request_id, asked.attempt))
            assert leg is not None
            assert leg.sequence.pace_tok_s == told_tok_s
            seen += 1
    assert seen


def test_at_the_usual_pace_the_promise_is_the_usual_one() -> None:
    turn = recorded(MACHINE, "chat", 1).first(1)[0].turns[0]
    usual = promise(turn, Kind.READING, zero_load_ttft_s=0.1)
    assert at_pace(usual, PACE_TOK_S) == usual
    assert at_pace(usual, 10.0).last_s(11) == pytest.approx(1.1 + 1.0)


def test_a_tiny_run_has_a_capacity_for_each_case() -> None:
    few = ("sarathi", "readahead")
    cells = EXPERIMENT.cells(Scope.TINY)
    assert {cell.parameters["policy"] for cell in cells} == set(POLICIES)
    chosen = [cell for cell in cells if cell.parameters["policy"] in few and cell.seed == 0]
    rows = run_cells(EXPERIMENT, chosen, jobs=1, done=lambda: None)
    assert len(rows) == len(SIZES[Scope.TINY].cases) * len(few)
    capacities = {number(row, "capacity_req_s") for row in rows}
    assert min(capacities) > 0
    assert len(capacities) > 1
    findings = EXPERIMENT.conclude(rows)
    assert [len(table.rows) for table in findings.tables] == [len(few)] * 2


def made_up(capacities: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """By policy, and by case; the first is a capacity of 1."""
    return [
        {
            "scenario": "chat", "policy": policy, "case": case, "seed": seed,
            "capacity_req_s": cases.get(case, 1.0) * (1 + 0.1 * seed),
        }
        for policy, cases in capacities.items()
        for case in CASES
        for seed in range(3)
    ]  # fmt: skip


def verdicts(rows: list[Row]) -> dict[str, Verdict]:
    return {claim.finding: claim.verdict for claim in EXPERIMENT.conclude(rows).claims}


def test_whoever_loses_too_much_by_a_wrong_belief_is_not_robust() -> None:
    case = "times heavy-tailed"
    for kept, verdict in ((LEAST_KEPT[case], Verdict.REPRODUCED), (0.5, Verdict.NOT)):
        found = verdicts(made_up({"slack": {}, "readahead": {case: kept}}))
        assert next(one for name, one in found.items() if name.endswith(case)) is verdict
        ahead = next(one for name, one in found.items() if "no less than the best" in name)
        assert ahead is Verdict.PARTLY  # in this case alone it is behind


def test_what_was_not_run_is_no_verdict() -> None:
    rows = [row for row in made_up({"slack": {}, "readahead": {}}) if row["case"] == BASE]
    found = verdicts(rows)
    assert list(found.values()).count(Verdict.NOT_RUN) == len(LEAST_KEPT) + 1
