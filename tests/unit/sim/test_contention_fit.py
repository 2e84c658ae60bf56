"""What engines do to each other is told apart from what an iteration takes alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from readahead.core.latency.iteration import IterationWork, iteration_s
from readahead.sim.calibration.contention import YOUNG_TOKENS, fit_shared, read_log
from readahead.sim.calibration.fit import FitSettings

SHARE = 0.4
SETTINGS = FitSettings(planes=1, has_curves=False)


def write(path: Path, rows: list[tuple[float, float, int]]) -> Path:
    """Iterations that decode: begin, seconds, requests."""
    lines = [
        {
            "began_s": began_s,
            "seconds": seconds,
            "tokens": requests,
            "requests": requests,
            "past_tokens": 0,
            "prefill_pairs": 0,
        }
        for began_s, seconds, requests in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_what_the_other_computed_is_counted_in_parts_of_an_iteration(tmp_path: Path) -> None:
    """Half of the first, all of the second, none of the third, and two at once in the last."""
    own = write(tmp_path / "own", [(0.0, 2.0, 1), (2.0, 1.0, 1), (3.0, 1.0, 1), (9.0, 1.0, 1)])
    other = write(tmp_path / "other", [(1.0, 2.0, 1), (5.0, 1.0, 1), (8.5, 1.0, 1), (9.5, 1.0, 1)])
    third = write(tmp_path / "third", [(9.0, 1.0, 1)])
    assert read_log(own, [other]).others == pytest.approx([0.5, 1.0, 0.0, 1.0])
    assert read_log(own, [other, third]).others == pytest.approx([0.5, 1.0, 0.0, 2.0])
    assert read_log(own, []).others == pytest.approx([0.0] * 4)


def test_the_share_and_the_times_alone_are_found(tmp_path: Path) -> None:
    """Iterations of 2 ms and 0.5 ms a request, longer by 40 % where another computed."""
    draw = random.Random(5)
    own: list[tuple[float, float, int]] = []
    other: list[tuple[float, float, int]] = []
    now_s = 0.0
    for _ in range(400):
        requests, is_shared = draw.randrange(1, 30), draw.random() < 0.3
        seconds = (0.002 + 0.0005 * requests) * (1 + SHARE * is_shared)
        own.append((now_s, seconds, requests))
        if is_shared:
            other.append((now_s, seconds, 1))
        now_s += seconds
    log = read_log(write(tmp_path / "own", own), [write(tmp_path / "other", other)])
    shared = fit_shared([log], name="test", settings=SETTINGS)
    assert shared.contention == pytest.approx(SHARE, abs=0.02)
    work = IterationWork(tokens=10, requests=10, past_tokens=0, prefill_pairs=0, draft_steps=0)
    assert iteration_s(work, model=shared.model) == pytest.approx(0.007, rel=0.02)


def test_who_is_never_disturbed_has_no_share(tmp_path: Path) -> None:
    rows = [(0.01 * n, 0.002 + 0.0005 * (n % 20 + 1), n % 20 + 1) for n in range(200)]
    log = read_log(write(tmp_path / "own", rows), [])
    assert fit_shared([log], name="test", settings=SETTINGS).contention == 0.0


def test_what_the_young_cost_is_told_from_requests_and_past_tokens(tmp_path: Path) -> None:
    """Answers that begin and end at any time; each iteration is 2 ms, 0.5 ms a request and 0.4 ms
    for each that is young."""
    draw = random.Random(6)
    lines, young, running, now_s = [], [], list[list[int]](), 0.0
    for _ in range(3000):
        running = [[age + 1, past + 1, left - 1] for age, past, left in running if left]
        if len(running) < 8 and draw.random() < 0.05:
            running.append([0, draw.randrange(50, 900), draw.randrange(5, 120)])
        if running:
            young.append(sum(age < YOUNG_TOKENS for age, _, _ in running))
            seconds = 0.002 + 0.0005 * len(running) + 0.0004 * young[-1]
            line = {"began_s": now_s, "seconds": seconds, "tokens": len(running)}
            past = sum(past for _, past, _ in running)
            lines.append(line | {"requests": len(running), "past_tokens": past, "prefill_pairs": 0})
            now_s += seconds
    path = tmp_path / "own"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = read_log(path, [])
    assert abs(log.young - young).mean() < 0.1 * sum(young) / len(young)
    shared = fit_shared([log], name="test", settings=SETTINGS)
    assert shared.young_s == pytest.approx(0.0004, rel=0.15)
    assert shared.predict_s(log) == pytest.approx([line["seconds"] for line in lines], rel=0.25)
