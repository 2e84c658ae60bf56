"""A sweep of rates that goes past what a real cluster can do: the peak is found, and shown."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from load_cluster_run import read_meta, read_records, readahead
from matplotlib.image import imread
from up_process import UpProcess, up_process

RATES_REQ_S = (0.25, 0.7, 4.0)
"""Idle, near what it can do, and far beyond."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BROWSER_S_MAX = 120.0
START_S_MAX = 240.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--hide-scrollbars", "--virtual-time-budget=2000",
    "--enable-logging=stderr", "--window-size=1200,2400",
)  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def small_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    """Real engines that take one request at a time each, so that a laptop can overload them."""
    limits = {"READAHEAD_WORKER__ENGINE__REQUESTS_MAX": "1"}
    with up_process(tmp_path_factory.mktemp("small"), environ=limits) as up:
        yield up.wait_ready(START_S_MAX)
        up.signal(signal.SIGINT)
        assert up.wait() == 0, f"{up.output}\n{up.logs()}"


def test_a_sweep_finds_the_peak(small_cluster: UpProcess, tmp_path: Path) -> None:
    """It lies inside: below it there is less to read, above it people wait. The page shows it."""
    done = readahead(
        *("load", "--target", f"grpc://{small_cluster.grpc}", "--requests", "16"),
        *("--sweep", ",".join(map(str, RATES_REQ_S)), "--seed", "1"),
        *("--prompt-tokens", "100", "--output-tokens", "400"),
        *("--jsonl", "run.jsonl", "--html", "sweep.html", "--junit", "junit.xml"),
        *("--assert", "throughput>=1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    for rate in RATES_REQ_S:
        path = tmp_path / f"run-{rate:g}.jsonl"
        meta = read_meta(path)
        assert meta["is_complete"]
        assert meta["engine"] == "vllm"
        assert meta["settings"]["rate_req_s"] == rate
        assert "0.25 to 4 req/s" in meta["settings"]["workload_summary"]
        outcomes = meta["results"]["outcomes"]
        assert sum(outcomes.values()) == len(read_records(path)) > 0
        assert outcomes.keys() <= {"finished", "rejected"}
    low, middle, high = _rows(done.stdout)
    assert middle.smooth_goodput > max(low.smooth_goodput, high.smooth_goodput)
    assert high.throughput > low.throughput
    assert [row.is_peak for row in (low, middle, high)] == [False, True, False]
    # A busy machine may send late at the highest rate, which then does not count as a side.
    assert high.is_valid != ("at the edge of the sweep" in done.stdout)
    assert (tmp_path / "junit.xml").read_text().count("<testcase") == len(RATES_REQ_S)
    _look(tmp_path / "sweep.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Of the table of a sweep."""

    is_peak: bool
    smooth_goodput: float
    throughput: float
    is_valid: bool


def _rows(report: str) -> list[Row]:
    found = re.findall(
        r"^│ +[\d.]+( \(peak\))? +│ +(\S+) +│ +(\S+) +│[^│]+│[^│]+│ +(yes|no) +│$", report, re.M
    )
    return [
        Row(
            is_peak=bool(mark),
            smooth_goodput=float(smooth.replace(",", "")),
            throughput=float(throughput.replace(",", "")),
            is_valid=valid == "yes",
        )
        for mark, smooth, throughput, valid in found
    ]


def _look(page: Path) -> None:
    """In a real browser: whole, silent, and with something to see."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: the page was not looked at")
    picture = page.with_suffix(".png")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    for what in ("--dump-dom", f"--screenshot={picture}"):
        done = subprocess.run(
            [CHROMIUM, *FLAGS, profile, what, page.as_uri()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BROWSER_S_MAX,
            check=True,
        )
        assert "CONSOLE" not in done.stderr
        if what == "--dump-dom":
            for part in (
                "Over the offered rate",
                "engine: vllm",
                "What users read",
                "The peak of smooth goodput",
            ):
                assert part in done.stdout, part
    pixels = np.rint(255 * imread(picture)[:, :, :3]).astype(int)
    differs = np.abs(pixels - pixels[5, 5]).sum(axis=2) > 60
    assert differs.mean() > 0.02
    assert all(band.any() for band in np.array_split(differs, 8))
