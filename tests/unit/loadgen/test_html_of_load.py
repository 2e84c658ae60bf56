"""The page of a load run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from load_samples import SampleRun

from readahead.core.reading.score import Ruler
from readahead.loadgen.assertions import check, parse_assertion
from readahead.loadgen.compare import compare
from readahead.loadgen.html_readers import readers_over_time
from readahead.loadgen.html_report import LoadReport, page
from readahead.loadgen.report_runs import LoadRun, read_run
from readahead.loadgen.sweep import SweepPoint
from readahead.ruler.promises import parse_zero_load_ttft

PAGE_BYTES_MAX = 3_000_000
FOREIGN = re.compile(r"""(?:src|href|action)\s*=\s*["'](?!\#)|url\((?!["']?\#)|@import""")
"""What would make a browser ask for something."""


class Checker(HTMLParser):
    """Elements that are closed in order, and the text."""

    VOID = frozenset({"meta", "br", "link", "path", "use", "rect", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def text_of(html: str) -> str:
    """What people read; the page is checked on the way."""
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    assert not FOREIGN.search(html)
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert len(html.encode()) < PAGE_BYTES_MAX
    return " ".join(checker.text)


def sample(folder: Path, name: str = "run", **changes: object) -> LoadRun:
    """A run with promises."""
    path = SampleRun(**changes).write(folder / f"{name}.jsonl")  # type: ignore[arg-type]
    zero_load = parse_zero_load_ttft("0.05")
    return read_run(path, Ruler(), label=name, zero_load_ttft=zero_load)


def test_one_run_has_all_its_parts(tmp_path: Path) -> None:
    run = sample(tmp_path)
    checked = check([parse_assertion("requests>=1"), parse_assertion("requests<1")], run.score,
                    run="run")  # fmt: skip
    report = LoadReport(runs=[run], checked=checked)
    html = page(report)
    assert page(report) == html, "the same records give the same page"
    text = text_of(html)
    for part in (
        "Load on http://127.0.0.1:8000", "engine: emulated, no model runs", "seed: 0",
        "commit: 0123456789ab", "workload: a sample", "Valid.", "smooth goodput", "Assertions",
        "holds", "fails", "What users read", "most idle", "Over the run", "Distributions",
        "By scenario", "chatbot", "coder", "All metrics", "SLO attainment", "requests' own",
        "Settings",
    ):  # fmt: skip
        assert part in text, part
    assert "By tenant" not in text


def test_an_invalid_run_says_so_first(tmp_path: Path) -> None:
    """And names from outside are only text."""
    reason, evil = "sends were late: p99 <9> ms", "<script>alert(1)</script>"
    run = sample(
        tmp_path, target=evil, engine=evil, scenarios=(evil, "b"), invalid_because=(reason,)
    )
    html = page(LoadReport(runs=[run]))
    assert "Invalid." in text_of(html)
    assert 'class="chip loud"' not in html
    assert "p99 &lt;9&gt; ms" in html
    assert html.index("Invalid.") < html.index("<svg")


def test_a_sweep_marks_its_peak(tmp_path: Path) -> None:
    slownesses = (1.0, 1.0, 6.0)
    runs = [
        sample(tmp_path, f"{n} req/s".replace("/", "-"), rate_req_s=float(n), slowness=slowness)
        for n, slowness in enumerate(slownesses, start=1)
    ]
    points = [
        SweepPoint(rate_req_s=float(n), score=run.score, is_valid=True)
        for n, run in enumerate(runs, start=1)
    ]
    text = text_of(page(LoadReport(runs=runs, points=points)))
    assert "Over the offered rate" in text
    assert "2 req/s (peak)" in text


def test_a_comparison_has_ratios_and_intervals(tmp_path: Path) -> None:
    runs = {
        label: [sample(tmp_path, f"{label}{n}", seed=n, slowness=slowness) for n in range(2)]
        for label, slowness in (("old", 1.0), ("new", 0.5))
    }
    found = compare(runs, order=["old", "new"] * 2, seed=0)
    every = [run for blocks in runs.values() for run in blocks]
    text = text_of(page(LoadReport(runs=every, comparison=found)))
    assert "old against new" in text
    assert re.search(r"0\.500 \[0\.500, 0\.500\]", text)


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = [sample(tmp_path, "a", engine="vllm"), sample(tmp_path, "b", slowness=2.0)]
    text = text_of(page(LoadReport(runs=runs)))
    assert "engine: vllm" in text
    assert "engine: emulated, no model runs" in text
    assert "Runs side by side" in text


def test_the_area_of_idle_users_is_their_idle_time(tmp_path: Path) -> None:
    run = sample(tmp_path, requests=60)
    state = readers_over_time(run.score)
    step_s = float(state.at_s[1] - state.at_s[0])
    idle_s = float(run.score.each.idle_censored_s.sum())
    assert float(state.idle_users.sum()) * step_s == pytest.approx(idle_s, rel=0.01)
    assert np.all(state.unread_tokens >= 0)
    assert float(state.unread_tokens.max()) > 0
    assert np.all(state.idle_users <= run.score.run.requests)


def test_promises_come_from_the_class_and_the_idle_system(tmp_path: Path) -> None:
    path = SampleRun().write(tmp_path / "run.jsonl")
    strict, loose = (
        read_run(path, Ruler(), zero_load_ttft=parse_zero_load_ttft(line))
        for line in ("0.001", "10")
    )
    assert strict.score.score.slo_attainment == 0.0
    assert loose.score.score.slo_attainment is not None
    assert loose.score.score.slo_attainment > 0


def test_readers_as_played_are_shown_where_they_differ(tmp_path: Path) -> None:
    """One who skims waits longer than the ruler's reader; equal ones need no table."""
    path = SampleRun().write(tmp_path / "run.jsonl")
    plain = read_run(path, Ruler())
    ruled_s = dict(zip(plain.score.run.request_ids, plain.score.each.idle_censored_s, strict=True))
    for extra_s, is_shown in ((0.0, False), (0.5, True)):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for fields in lines:
            fields["reader_idle_s"] = ruled_s[fields["request_id"]] + extra_s
        path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
        shown = page(LoadReport(runs=[read_run(path, Ruler())]))
        assert ("Readers as they were played" in shown) is is_shown
        assert (f"<td>{len(lines)}</td><td>{len(lines)}</td>" in shown) is is_shown


def test_runs_without_a_reader_have_a_page(tmp_path: Path) -> None:
    path = SampleRun(scenarios=("tools",)).write(tmp_path / "run.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    bare = [json.dumps({**fields, "has_reader": False}) for fields in lines]
    path.write_text("\n".join(bare) + "\n", encoding="utf-8")
    assert "No user got a token." in page(LoadReport(runs=[read_run(path, Ruler())]))
