"""The page of a load run in a real browser: it is whole, it asks for nothing, it shows something.

Simulated records: no engine is needed to see whether a page is drawn.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from load_samples import SampleRun
from matplotlib.image import imread

from readahead.core.reading.score import Ruler
from readahead.loadgen.html_report import LoadReport, write_page
from readahead.loadgen.report_runs import read_run
from readahead.loadgen.sweep import SweepPoint
from readahead.ruler.promises import parse_zero_load_ttft

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BROWSER_S_MAX = 120.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--hide-scrollbars", "--virtual-time-budget=2000",
    "--enable-logging=stderr",
)  # fmt: skip
SCHEMES = {"dark": 0, "light": 1}
"""As Chromium's settings number them."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a sweep in it, which has every kind of plot."""
    folder = tmp_path_factory.mktemp("report")
    zero_load = parse_zero_load_ttft("0.05")
    runs, points = [], []
    for number, slowness in enumerate((1.0, 1.2, 4.0), start=1):
        path = SampleRun(rate_req_s=number, slowness=slowness).write(folder / f"{number}.jsonl")
        runs.append(read_run(path, Ruler(), label=f"{number} req/s", zero_load_ttft=zero_load))
        points.append(SweepPoint(rate_req_s=number, score=runs[-1].score, is_valid=True))
    page = folder / "report.html"
    write_page(page, LoadReport(runs=runs, points=points))
    return page


def browse(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Opens a page; what goes to the console comes on standard error."""
    assert CHROMIUM is not None
    profile = page.parent / "profile"
    return subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BROWSER_S_MAX,
        check=True,
    )


def test_the_page_is_whole_and_asks_for_nothing(report: Path) -> None:
    """A request that the page's own policy forbids, and any error, would be on the console."""
    done = browse(report, "--dump-dom")
    for part in (
        "Over the offered rate", "What users read", "Over the run", "Distributions",
        "By scenario", "All metrics", "engine: emulated",
    ):  # fmt: skip
        assert part in done.stdout, part
    assert done.stdout.count("<svg") >= 8
    assert "CONSOLE" not in done.stderr


def test_a_page_that_asks_would_be_seen(report: Path) -> None:
    """The check above can fail: a foreign image is refused, and that is on the console."""
    asking = report.with_name("asking.html")
    text = report.read_text(encoding="utf-8")
    asking.write_text(text.replace("<main>", '<main><img src="http://127.0.0.1:9/a.png">'))
    assert "CONSOLE" in browse(asking, "--dump-dom").stderr


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_picture_shows_something(report: Path, tmp_path: Path, scheme: str) -> None:
    """Either scheme has its own paper; on it there is much that is not paper."""
    picture = tmp_path / f"{scheme}.png"
    browse(
        report,
        f"--screenshot={picture}",
        "--window-size=1200,2400",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
    )
    pixels = np.rint(255 * imread(picture)[:, :, :3])
    assert pixels.shape[:2] == (2400, 1200)
    paper = pixels[5, 5].astype(int)
    assert (paper.max() < 60) if scheme == "dark" else (paper.min() > 240)
    differs = np.abs(pixels.astype(int) - paper).sum(axis=2) > 60
    assert differs.mean() > 0.02
    assert all(band.any() for band in np.array_split(differs, 8))
    assert pixels.std() > 10
