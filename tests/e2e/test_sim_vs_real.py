"""The simulator against a real cluster of vLLM engines, calibrated from other runs of it alone."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "sim-vs-real"
OFF_MAX = 0.5
"""Of medians over a run. The experiment's README has what a quiet machine gives."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cluster: a run to calibrate from, and a run to predict."""
    script = runpy.run_path(str(EXPERIMENT / "run_real.py"))
    out = tmp_path_factory.mktemp("real")
    script["main"](out, "1p1d", ["calibration", "chat"])
    return out


def _script() -> dict[str, Any]:
    return runpy.run_path(str(EXPERIMENT / "predict.py"))


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(600)
def test_a_run_is_predicted_from_another(real: Path) -> None:
    """TTFT and TPOT of a run of chats, from the iteration logs of a calibration run."""
    script = _script()
    if script["run_of"](real, "1p1d/chat")["is_disturbed"]:
        pytest.skip("others used this machine meanwhile: nothing could have been predicted")
    known = script["calibrated"](real, ["1p1d/calibration"])
    [row] = [one for one in script["compared"](real, known, []) if one["against"] == "model"]
    assert row["requests"] > 100
    assert abs(row["ttft_s_of_medians"]) < OFF_MAX, row
    assert abs(row["tpot_s_of_medians"]) < OFF_MAX, row
