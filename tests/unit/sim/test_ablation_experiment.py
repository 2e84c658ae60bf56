"""The ablation: orthogonal designs, switches that switch, and effects that are what they are."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.core.cluster import Role
from readahead.sim.cluster import ClusterSpec
from readahead.sim.experiments.ablation import EXPERIMENT
from readahead.sim.experiments.ablation_cells import SIZES, runs
from readahead.sim.experiments.ablation_design import (
    column,
    confounded,
    design,
    effect,
    resolution,
)
from readahead.sim.experiments.ablation_factors import (
    COLOCATED,
    FACTORS,
    PREFILL,
    SPLIT,
    ablated,
    factors_of,
)
from readahead.sim.experiments.ablation_tables import OUTCOMES, Judged, Runs, judged
from readahead.sim.experiments.capacity_cells import TUNING_SEED
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.experiment import Row, Scope, Verdict
from readahead.sim.experiments.intervals import Mean, distinct, mean, number, where
from readahead.sim.experiments.runner import run_cells

NAMES = tuple("abcdefghijklmnop")


def sign(off: frozenset[str], *term: str) -> int:
    return math.prod(-1 if name in off else 1 for name in term)


@pytest.mark.parametrize("count", range(1, 17))
def test_all_columns_of_a_design_are_orthogonal(count: int) -> None:
    names = NAMES[:count]
    every = design(names)
    assert not every[0]
    assert len(set(every)) == len(every) < max(17, 4 * count)
    for name in names:
        assert sum(sign(off, name) for off in every) == 0
    for pair in combinations(names, 2):
        assert sum(sign(off, *pair) for off in every) == 0


@pytest.mark.parametrize("count", range(1, 17))
def test_no_factor_is_mistaken_for_a_pair_of_others(count: int) -> None:
    names = NAMES[:count]
    every, length = design(names), resolution(names)
    assert length is None or length >= 4
    assert (length is None) == (len(every) == 2**count)
    for three in combinations(names, 3):
        assert sum(sign(off, *three) for off in every) == 0


def test_five_factors_leave_all_pairs_apart() -> None:
    assert resolution(NAMES[:5]) == 5
    assert all(len(group) == 1 for group in confounded(NAMES[:5]))


@pytest.mark.parametrize("count", [3, 5, 6, 8, 11])
def test_pairs_are_grouped_by_what_the_runs_tell_apart(count: int) -> None:
    names = NAMES[:count]
    every, groups = design(names), confounded(names)
    assert sorted(pair for group in groups for pair in group) == sorted(combinations(names, 2))
    seen = [{tuple(sign(off, *pair) for off in every) for pair in group} for group in groups]
    assert all(len(one) == 1 for one in seen)
    assert len(set.union(*seen)) == len(groups)


def test_no_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="factors must be at least 1, is 0"):
        design(())


@given(
    own=st.lists(st.floats(-10, 10), min_size=6, max_size=6),
    both=st.floats(-10, 10),
    level=st.floats(-100, 100),
)
def test_effects_are_those_of_the_model_that_made_the_rows(
    own: list[float], both: float, level: float
) -> None:
    names = NAMES[:6]

    def made(off: frozenset[str], seed: int) -> Row:
        value = (
            level
            + seed
            + sum(size * sign(off, name) / 2 for size, name in zip(own, names, strict=True))
        )
        value += both * sign(off, "a", "b") / 2
        return {"seed": seed, "y": value, **{column(name): name not in off for name in names}}

    rows = [made(off, seed) for seed in range(3) for off in design(names)]
    for size, name in zip(own, names, strict=True):
        assert effect(rows, (name,), lambda row: number(row, "y")).value == pytest.approx(
            size, abs=1e-9
        )
    found = effect(rows, ("a", "b"), lambda row: number(row, "y"))
    assert found.value == pytest.approx(both, abs=1e-9)
    assert found.count == 3


def settings_of(spec: ClusterSpec) -> object:
    """All that a factor can change; two policies with the same knobs are equal."""
    return spec.policy(Role.DECODE), spec.decode_worker, spec.prefill, spec.core


@pytest.mark.parametrize("shape", [COLOCATED, SPLIT])
def test_each_mechanism_has_a_switch_of_its_own(shape: str) -> None:
    names = factors_of(shape)
    arms = [frozenset[str](), *(frozenset((name,)) for name in names)]
    found = [settings_of(ablated(shape, off)) for off in arms]
    for one, other in combinations(found, 2):
        assert one != other
    assert ablated(shape, frozenset()).prefill == PREFILL[shape]


def test_every_mechanism_is_a_factor_somewhere() -> None:
    assert {name for shape in PREFILL for name in factors_of(shape)} == set(FACTORS)


def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(ValueError, match="no factor of colocated: magic"):
        ablated(COLOCATED, frozenset(("magic",)))


@pytest.mark.parametrize("scope", list(Scope))
def test_loads_are_chosen_on_a_seed_that_is_not_reported(scope: Scope) -> None:
    assert TUNING_SEED not in SIZES[scope].seeds
    assert len(SIZES[Scope.FULL].seeds) >= 3
    assert len(SIZES[Scope.FULL].scenarios) == 4


def test_a_tiny_ablation_runs_the_design_from_the_same_arrivals() -> None:
    rows = run_cells(EXPERIMENT, EXPERIMENT.cells(Scope.TINY), jobs=1, done=lambda: None)
    designed, single = runs(COLOCATED, Scope.TINY)
    assert len(rows) == 4 * len({*designed, *single})
    for kind in Kind:
        for seed in SIZES[Scope.TINY].seeds:
            same = where(rows, kind=kind.value, seed=seed)
            assert len(distinct(same, "requests")) == 1
            assert {row["unended"] for row in same} == {0}
    assert len({row["attained_reading"] for row in rows}) > 1
    findings = EXPERIMENT.conclude(rows)
    assert findings.figures[0].png.startswith(b"\x89PNG")
    assert [len(table.rows) for table in findings.tables[:3]] == [2, 1, 2]


@pytest.mark.parametrize(
    ("value", "half", "what"),
    [
        (3.0, 1.0, Judged.HELPS),
        (-3.0, 1.0, Judged.HARMS),
        (0.3, 0.5, Judged.USELESS),
        (0.6, 0.3, Judged.USELESS),
        (3.0, 4.0, Judged.UNCLEAR),
        (3.0, math.nan, Judged.UNCLEAR),
    ],
)
def test_an_effect_is_judged_by_its_interval(value: float, half: float, what: Judged) -> None:
    found = Mean(value=value, half=half, count=1 if math.isnan(half) else 3)
    assert judged(found, OUTCOMES[0]) is what
    if what in (Judged.HELPS, Judged.HARMS):
        other = Judged.HARMS if what is Judged.HELPS else Judged.HELPS
        assert judged(found, OUTCOMES[3]) is other  # less idle time is better


def made_up(effects: dict[str, dict[str, float]]) -> list[Row]:
    """Rows in which mechanisms add so much to attainment, by workload, and nothing else."""
    rows: list[Row] = []
    designed, single = runs(COLOCATED, Scope.FULL)
    for scenario, adds in effects.items():
        for kind in Kind:
            for seed in range(3):
                for off in dict.fromkeys([*designed, *single]):
                    share = 0.8 + 0.01 * seed - sum(adds.get(name, 0.0) for name in off)
                    about = {column(name): name not in off for name in factors_of(COLOCATED)}
                    rows.append(
                        {
                            "shape": COLOCATED, "scenario": scenario, "kind": kind.value,
                            "seed": seed, "is_designed": off in designed, "rate_req_s": 1.0,
                            "attained_reading": share, "attained_staged": share,
                            "f1_tok_s": 100.0, "idle_p99_s": 1.0, **about,
                        }
                    )  # fmt: skip
    return rows


def test_a_mechanism_that_harms_somewhere_is_said_to() -> None:
    rows = made_up({"chat": {"align": 0.05, "sit_out": 0.05}, "code": {"align": -0.05}})
    findings = EXPERIMENT.conclude(rows)
    said = {claim.finding.split(" (")[0]: claim for claim in findings.claims}
    assert said["sit-out"].verdict is Verdict.REPRODUCED
    assert said["prompt-aligned batches"].verdict is Verdict.PARTLY
    assert said["sacrifice set"].verdict is Verdict.NOT
    chat, code = next(
        row[2:] for row in findings.tables[0].rows if row[0] == "prompt-aligned batches"
    )
    assert chat.startswith("helps: reading SLO, scenario's SLOs; useless")
    assert code.startswith("**harms**: reading SLO, scenario's SLOs")
    whole = findings.claims[-1]
    assert whole.verdict is Verdict.PARTLY  # without align the coders fare better
    assert "without prompt-aligned batches" in whole.ours


def test_the_last_mechanism_is_compared_with_the_whole() -> None:
    found = Runs(made_up({"chat": {"align": 0.05}}))
    last = found.last(COLOCATED, "chat", "align", OUTCOMES[0])
    assert last.value == pytest.approx(5.0)
    assert last.half == pytest.approx(0.0, abs=1e-9)
    assert mean([last.value]).value == pytest.approx(
        found.main(COLOCATED, "chat", ("align",), OUTCOMES[0]).value
    )
