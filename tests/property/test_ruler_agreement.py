"""The ruler's arrays say what core's pure functions say."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.reading.benefit import Form
from readahead.core.reading.curves import EndToEnd, Origin, Slo, TtftTbt, TtftTpot
from readahead.core.reading.score import Ruler, score
from readahead.core.reading.timeline import Outcome
from readahead.ruler.gather import gather
from readahead.ruler.matrices import matrices
from readahead.ruler.run import Run
from readahead.ruler.scoring import score_run

AGREEMENT = 1e-9

gaps_s = st.one_of(
    st.just(0.0), st.floats(0.001, 0.4), st.floats(0.0, 20.0), st.sampled_from([0.2, 1.0])
)
bounds_s = st.floats(0.01, 30.0)
slos: st.SearchStrategy[Slo] = st.one_of(
    st.builds(TtftTbt, ttft_s=bounds_s, tbt_s=bounds_s),
    st.builds(TtftTpot, ttft_s=bounds_s, tpot_s=bounds_s),
    st.builds(EndToEnd, e2e_s=bounds_s),
)
rulers = st.builds(
    Ruler,
    form=st.sampled_from(Form),
    alpha=st.floats(0.0, 10.0),
    pace_tok_s=st.floats(0.5, 30.0),
    offset_s=st.sampled_from([0.0, 1.0]),
    origin=st.sampled_from(Origin),
    slo=st.none() | slos,
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, object]:
    """One line of the interchange format, without its id."""
    arrival_s = draw(st.floats(0.0, 100.0))
    steps = draw(st.lists(gaps_s, max_size=40))
    times_s = [arrival_s + total for total in itertools.accumulate(steps)]
    fields: dict[str, object] = {
        "arrival_s": arrival_s,
        "token_times_s": times_s,
        "outcome": draw(st.sampled_from(Outcome)).value,
    }
    if draw(st.booleans()):
        fields["ended_s"] = (times_s[-1] if times_s else arrival_s) + draw(st.floats(0.0, 30.0))
    if draw(st.booleans()):
        fields["pace_tok_s"] = draw(st.floats(0.5, 30.0))
    if draw(st.booleans()):
        fields["thinking_tokens"] = draw(st.integers(0, 45))
    if draw(st.integers(0, 3)) == 0:
        fields["has_reader"] = False
    slo = draw(st.none() | slos)
    if slo is not None:
        fields["slo"] = dataclasses.asdict(slo)
    return fields


def gathered(lines: list[dict[str, object]]) -> Run:
    """The run that these requests make, by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        numbered = [{"request_id": f"r{i}", **fields} for i, fields in enumerate(lines)]
        path.write_text("".join(f"{json.dumps(f)}\n" for f in numbered), encoding="utf-8")
        found = gather(path)
    assert found.problems.left_out == 0
    (run,) = found.runs
    return run


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(requests(), min_size=1, max_size=12),
    ruler=rulers,
    more_s=st.none() | st.floats(0.0, 50.0),
)
def test_arrays_agree_with_pure_functions(
    lines: list[dict[str, object]], ruler: Ruler, more_s: float | None
) -> None:
    run = gathered(lines)
    until_s = None if more_s is None else run.observed().end_s + more_s
    ours = score_run(run, ruler, observed_until_s=until_s).score
    theirs = score(list(run.timelines()), ruler, observed=run.observed(until_s))
    _assert_equal(dataclasses.asdict(ours), dataclasses.asdict(theirs))


def _assert_equal(ours: object, theirs: object, name: str = "") -> None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            _assert_equal(ours[key], theirs[key], f"{name}.{key}")
    elif isinstance(ours, float) and isinstance(theirs, float):
        # Sums of hundreds of tokens per second divided by a short run: relative, where large.
        close = math.isclose(ours, theirs, rel_tol=AGREEMENT, abs_tol=AGREEMENT)
        assert close, f"{name}: {ours} is not {theirs}"
    else:
        assert ours == theirs, name


@pytest.mark.parametrize("cells", [1, 7, 64])
@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_matrices_hold_each_request_once(cells: int, lengths: list[int]) -> None:
    run = gathered(
        [{"arrival_s": 0.0, "token_times_s": [1.0 * i for i in range(n)]} for n in lengths]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("readahead.ruler.matrices.CELLS_MAX", cells)
        found = list(matrices(run))
    held = sorted(int(row) for matrix in found for row in matrix.requests)
    assert held == [i for i, n in enumerate(lengths) if n]
    for matrix in found:
        assert matrix.times_s.size <= cells or len(matrix.requests) == 1
        for row, times_s, length in zip(
            matrix.requests, matrix.times_s, matrix.lengths, strict=True
        ):
            assert times_s[:length].tolist() == run.timeline(int(row)).token_times_s
