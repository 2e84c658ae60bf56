"""The numbers of the two tricks, as tables for a terminal and as a page."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from readahead.core.reading.percentiles import Summary
from readahead.core.reading.tricks_queue import SIMULATED
from readahead.ruler.demo import (
    DELAY_RATE_REQ_S,
    DROP_RATE_REQ_S,
    Demonstration,
    Pair,
    Seen,
)
from readahead.ruler.demo_plot import write_plot

PAGE_COLUMNS = 100


def tables(demonstration: Demonstration) -> list[Table]:
    """One for each trick: the same requests, served honestly and with it."""
    return [
        _table(
            f"Output delay at {DELAY_RATE_REQ_S:g} requests/s ({SIMULATED})",
            demonstration.delay,
            trick="delayed",
        ),
        _table(
            f"Abandonment at {DROP_RATE_REQ_S:g} requests/s, past saturation ({SIMULATED})",
            demonstration.abandonment,
            trick="abandoning",
        ),
    ]


def write_page(demonstration: Demonstration, path: Path) -> None:
    """The tables and the picture in one file of HTML, with nothing to fetch."""
    console = Console(record=True, width=PAGE_COLUMNS, file=io.StringIO())
    for table in tables(demonstration):
        console.print(table)
    page = console.export_html(inline_styles=True)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "tricks.svg"
        write_plot(demonstration, picture)
        svg = picture.read_text(encoding="utf-8")
    path.write_text(page.replace("</body>", svg[svg.index("<svg") :] + "</body>"), encoding="utf-8")


def _table(title: str, pair: Pair, *, trick: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("honest", trick):
        table.add_column(name, justify="right")
    for name, honest, tricked in zip(_ROWS, _cells(pair.honest), _cells(pair.trick), strict=True):
        table.add_row(name, honest, tricked)
    return table


_ROWS = (
    "TBT p50, ms",
    "TBT p99, ms",
    "SLO attainment, %",
    "goodput, tokens/s",
    "user idle, mean / p99, s",
    "  censored",
    "smooth goodput F1, tokens/s",
    "  censored",
    "smooth goodput F2, tokens/s",
    "  censored",
    "answers cut off",
    "requests dropped",
    "detected",
)


def _cells(seen: Seen) -> list[str]:
    by_f1, by_f2, report = seen.by_f1, seen.by_f2, seen.report
    found = [
        f"{report.delayed_requests} delayed" if report.is_delaying else "",
        "abandonment" if report.is_abandoning else "",
    ]
    return [
        f"{by_f1.tbt_s.p50 * 1000:.0f}" if by_f1.tbt_s else "-",
        f"{by_f1.tbt_s.p99 * 1000:.0f}" if by_f1.tbt_s else "-",
        _number(by_f1.slo_attainment, 100.0),
        _number(by_f1.goodput_tok_s),
        _mean_and_p99(by_f1.user_idle_s),
        _mean_and_p99(by_f1.user_idle_censored_s),
        _number(by_f1.smooth_goodput_tok_s),
        _number(by_f1.smooth_goodput_censored_tok_s),
        _number(by_f2.smooth_goodput_tok_s),
        _number(by_f2.smooth_goodput_censored_tok_s),
        str(report.cut_off_requests),
        str(report.dropped_requests),
        ", ".join(word for word in found if word) or "nothing",
    ]


def _number(value: float | None, times: float = 1.0) -> str:
    return "-" if value is None else f"{value * times:.0f}"


def _mean_and_p99(of: Summary | None) -> str:
    return "-" if of is None else f"{of.mean:.2f} / {of.p99:.2f}"
