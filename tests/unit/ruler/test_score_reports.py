"""What a score looks like: as a table, as JSON, and as a page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from readahead.core.reading.benefit import Form
from readahead.core.reading.score import Ruler
from readahead.ruler.assess import Assessment, FileScore, assess
from readahead.ruler.html_report import page
from readahead.ruler.json_report import objects
from readahead.ruler.sweep import sweeps
from readahead.ruler.table import number_text, short_names, show

SAMPLES = Path(__file__).parents[2] / "data" / "score"
FILES = ("load.jsonl", "vllm-bench.json", "aiperf.jsonl", "guidellm.json")
NAMED = {
    "smooth_goodput_tok_s", "smooth_goodput_censored_tok_s", "user_idle_s", "slo_attainment",
    "goodput_req_s", "goodput_tok_s", "ttft_s", "tbt_s", "tpot_s", "e2e_s", "form", "alpha",
    "pace", "origin", "outcomes", "left_out",
}  # fmt: skip
"""Keys that others build upon."""


def scores(*names: str, percentiles: tuple[float, ...] = ()) -> list[FileScore]:
    """The scores of some samples."""
    assessment = Assessment(ruler=Ruler(), percentiles=percentiles)
    return [assess(SAMPLES / name, assessment) for name in names]


def write_log(folder: Path, name: str, *, gap_s: float, requests: int = 4) -> Path:
    """A log of requests that arrive each second, with ten tokens each."""
    path = folder / name
    lines = [
        {
            "request_id": f"r{i}",
            "arrival_s": float(i),
            "token_times_s": [i + 0.1 + gap_s * k for k in range(10)],
        }
        for i in range(requests)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def shown(files: Sequence[FileScore]) -> str:
    """The table on a terminal of 100 columns."""
    out = io.StringIO()
    show(files, Console(file=out, width=100))
    return out.getvalue()


def test_table_fits_a_hundred_columns_and_has_all_runs() -> None:
    text = shown(scores(*FILES))
    assert max(len(line) for line in text.splitlines()) <= 100
    for name in (*FILES[:3], "poisson", "smooth goodput F1", "smooth goodput F2", "left out"):
        assert name in text
    assert "lower bound" in text, "what guidellm cannot say"


def test_table_says_what_could_not_be_scored(tmp_path: Path) -> None:
    log = write_log(tmp_path, "log.jsonl", gap_s=0.1)
    log.write_text(log.read_text(encoding="utf-8") + "{broken\n", encoding="utf-8")
    files = [assess(path, Assessment(ruler=Ruler())) for path in (log, tmp_path / "absent[1]")]
    text = shown(files).replace("\n", "")
    assert "log.jsonl:5: no JSON object" in text
    assert "absent[1]: cannot be scored: No such file or directory" in text


def test_second_form_is_always_beside_the_first() -> None:
    assessment = Assessment(ruler=Ruler(form=Form.F5))
    (fields,) = objects(assess(SAMPLES / "load.jsonl", assessment))
    assert list(fields["smooth_goodput_by_form"]) == ["F5", "F2"]  # type: ignore[call-overload]


def test_json_has_the_keys_that_others_build_upon() -> None:
    for file in scores(*FILES, percentiles=(99.9,)):
        for fields in objects(file):
            assert fields.keys() >= NAMED
            idle = fields["user_idle_s"]
            assert isinstance(idle, dict)
            assert idle.keys() == {"count", "mean", "p50", "p90", "p99", "p99.9"}
            assert json.dumps(fields, allow_nan=False)


def test_json_counts_outcomes_and_what_was_left_out(tmp_path: Path) -> None:
    log = write_log(tmp_path, "log.jsonl", gap_s=0.1)
    more = '{"request_id":"x","arrival_s":0,"token_times_s":[],"outcome":"rejected"}\n{"request_id"'
    log.write_text(log.read_text(encoding="utf-8") + more, encoding="utf-8")
    (fields,) = objects(assess(log, Assessment(ruler=Ruler())))
    assert fields["outcomes"] == {"finished": 4, "cancelled": 0, "failed": 0, "rejected": 1}
    assert fields["unanswered"] == 1
    left_out = fields["left_out"]
    assert isinstance(left_out, dict)
    assert (left_out["requests"], left_out["findings"]) == (1, {"truncated": 1})


class _Elements(HTMLParser):
    """Collects what a page refers to and the ids it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href"}:
                self.addresses.append(value or "")


def test_page_needs_nothing_but_itself() -> None:
    text = page(scores(*FILES))
    elements = _Elements()
    elements.feed(text)
    assert len(elements.ids) == len(set(elements.ids))
    assert all(address.startswith("#") for address in elements.addresses)
    assert {address[1:] for address in elements.addresses} <= set(elements.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(elements.ids)
    assert not {"script", "link", "img", "iframe"} & set(elements.tags)
    assert elements.tags.count("svg") == 1 + 5 + 3, "a sweep, five runs, three choices"


def test_page_has_the_colours_of_its_reader() -> None:
    text = page(scores("load.jsonl"))
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert "var(--grid)" in text
    assert "#0102" not in text


def test_page_is_the_same_each_time() -> None:
    assert page(scores("load.jsonl")) == page(scores("load.jsonl"))


def test_names_on_the_page_are_text(tmp_path: Path) -> None:
    log = write_log(tmp_path, "<b>&.jsonl", gap_s=0.1)
    text = page([assess(log, Assessment(ruler=Ruler()))])
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;.jsonl" in text


def test_runs_that_differ_in_numbers_make_a_sweep(tmp_path: Path) -> None:
    paths = [write_log(tmp_path, f"ours-{n}.jsonl", gap_s=0.1, requests=n) for n in (3, 5)]
    for n, path in zip((3, 5), paths, strict=True):
        meta = {"settings": {"rate_req_s": n}}
        path.with_name(path.name + ".meta.json").write_text(json.dumps(meta), encoding="utf-8")
    other = write_log(tmp_path, "theirs.jsonl", gap_s=0.1)
    found = [
        run for path in (*paths, other) for run in assess(path, Assessment(ruler=Ruler())).runs
    ]
    assert {name: len(runs) for name, runs in sweeps(found).items()} == {"ours": 2}


def test_page_of_users_without_a_token_is_made(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"request_id":"x","arrival_s":0,"token_times_s":[],"outcome":"failed","ended_s":9}\n',
        encoding="utf-8",
    )
    file = assess(log, Assessment(ruler=Ruler()))
    assert "No user got a token" in page([file])
    assert file.runs[0].score.user_idle_censored_s is not None
    assert file.runs[0].score.user_idle_censored_s.mean == pytest.approx(8.8)


def test_short_names_lose_what_all_share(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [write_log(tmp_path / folder, "log.jsonl", gap_s=0.1) for folder in ("a", "b")]
    found = [run for path in paths for run in assess(path, Assessment(ruler=Ruler())).runs]
    assert short_names(found) == ["a/log.jsonl", "b/log.jsonl"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.0, "0"), (12345.6, "12346"), (123.45, "123.5"), (-12.346, "-12.35"),
        (1.2345, "1.234"), (0.0001234, "1.2e-04"),
    ],
)  # fmt: skip
def test_numbers_have_the_digits_that_matter(value: float | None, text: str) -> None:
    assert number_text(value) == text
