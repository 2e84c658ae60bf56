"""The simulated parking experiment: its worlds, and what it concludes from rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from readahead.sim.experiments.experiment import Row, Scope, Verdict
from readahead.sim.experiments.intervals import number
from readahead.sim.experiments.parking import EXPERIMENT
from readahead.sim.experiments.parking_cells import (
    ARMS,
    CASES,
    OFF,
    SHORT_OF_MEMORY,
    SHORT_OF_TIME,
    SOLVENT,
    UNGUARDED,
    VLLM,
    cells,
    lived,
    spec,
)
from readahead.sim.experiments.parking_pages import COLUMNS, claims, compared
from readahead.sim.experiments.windows import Window

WINDOW = Window(start_s=2.0, last_s=8.0, end_s=10.0)
SMALL = replace(SHORT_OF_MEMORY["reasoning-third"], rate_req_s=6.0)


def rows(values: dict[str, dict[str, float]]) -> list[Row]:
    """Each case and arm on three seeds; what is not said is alike."""
    found: list[Row] = []
    for case in CASES:
        for arm in ARMS:
            for seed in range(3):
                usual = dict.fromkeys(COLUMNS, 100.0)
                usual |= {"attained_reading": 0.8 + 0.001 * seed, "idle_p99_s": 5.0}
                kind = "time" if case in SHORT_OF_TIME else "memory"
                own = values.get(f"{kind}, {arm}", {})
                found.append({"case": case, "arm": arm, "seed": seed, **usual, **own})
    return found


def verdicts(values: dict[str, dict[str, float]]) -> list[Verdict]:
    return [claim.verdict for claim in claims(compared(rows(values)))]


GAIN = {"attained_reading": 0.95, "idle_p99_s": 1.0, "f1_literal": 200.0, "f2_literal": 200.0}
HARM = {"attained_reading": 0.4}


def test_gain_where_memory_is_short_and_harm_where_time_is() -> None:
    found = {
        f"memory, {SOLVENT}": GAIN,
        f"memory, {UNGUARDED}": GAIN,
        f"time, {UNGUARDED}": HARM,
    }
    assert verdicts(found) == [Verdict.REPRODUCED] * 6


def test_no_difference_is_no_finding() -> None:
    none, harmless = [Verdict.NOT] * 3, [Verdict.REPRODUCED] * 3
    assert verdicts({}) == [*none, *harmless]


@pytest.mark.parametrize("worse", [HARM, {"f1_literal": 90.0}, {"idle_p99_s": 6.0}])
def test_parking_that_costs_is_not_called_harmless(worse: dict[str, float]) -> None:
    assert verdicts({f"time, {SOLVENT}": worse})[3] is Verdict.PARTLY


def test_a_test_that_costs_the_gain_is_not_free() -> None:
    assert verdicts({f"memory, {UNGUARDED}": GAIN})[4] is Verdict.NOT


def test_every_arm_sees_the_same_requests_and_only_those_that_may_park() -> None:
    found = {arm: lived(spec(SMALL, ARMS[arm]), SMALL, WINDOW, 1) for arm in ARMS}
    assert len({row["requests"] for row in found.values()}) == 1
    assert found[VLLM]["parks"] == found[OFF]["parks"] == 0
    assert found[OFF]["host_gb"] == 0


def test_parking_uses_host_memory_where_the_device_is_full() -> None:
    tight = spec(SMALL, ARMS[SOLVENT])
    worker = replace(tight.decode_worker, kv_blocks=600, context_tokens_max=9600)
    found = lived(replace(tight, decode_worker=worker), SMALL, WINDOW, 1)
    for name in ("parks", "host_gb", "copied_gb"):
        assert number(found, name) > 0


def test_cells_are_whole() -> None:
    every = cells(Scope.FULL)
    assert len(every) == len(CASES) * len(ARMS) * len({cell.seed for cell in every})
    assert len({cell.seed for cell in every}) >= 3
    for scope in (Scope.QUICK, Scope.TINY):
        kinds = {str(cell.parameters["case"]) for cell in cells(scope)}
        assert kinds & set(SHORT_OF_MEMORY)
        assert kinds & set(SHORT_OF_TIME)


def test_tables_and_figure_are_made_of_the_rows() -> None:
    found = EXPERIMENT.conclude(rows({}))
    assert len(found.tables[0].rows) == len(CASES) * len(ARMS)
    assert found.figures[0].png.startswith(b"\x89PNG")
