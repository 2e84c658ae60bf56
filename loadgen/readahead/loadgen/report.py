"""A run's numbers as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.records import Outcome
from readahead.loadgen.statistics import Quantiles, Summary, quantile


def progress_line(counts: LiveCounts, now_s: float, *, requests: int) -> Text:
    """The run so far, in one line."""
    outcomes = counts.outcomes
    parts = [
        f"{now_s:6.1f} s",
        f"sent {counts.sent}/{requests}",
        f"running {counts.running}",
        f"finished {outcomes[Outcome.FINISHED]}",
        f"failed {outcomes[Outcome.FAILED]}",
    ]
    if outcomes[Outcome.REJECTED]:
        parts.append(f"rejected {outcomes[Outcome.REJECTED]}")
    if counts.dropped:
        parts.append(f"dropped {counts.dropped}")
    parts.append(f"{counts.tokens / max(now_s, 1e-9):,.0f} tok/s")
    if counts.ttft_s:
        ascending = sorted(counts.ttft_s)
        p50, p99 = (_milliseconds(quantile(ascending, share)) for share in (0.5, 0.99))
        parts.append(f"TTFT p50 {p50} p99 {p99} ms")
    return Text(" · ".join(parts), no_wrap=True, overflow="ellipsis")


def report(summary: Summary) -> RenderableType:
    """The run's result."""
    outcomes = " · ".join(
        f"{outcome.value} {summary.outcomes[outcome]}"
        for outcome in Outcome
        if summary.outcomes[outcome] or outcome is Outcome.FINISHED
    )
    lines = [
        Text(f"outcomes    {outcomes}" + (f" · dropped {summary.dropped}" * bool(summary.dropped))),
        Text(
            f"throughput  {summary.requests_per_s:.2f} req/s finished · "
            f"{summary.tokens_per_s:,.1f} tok/s over {summary.span_s:.1f} s"
        ),
    ]
    if summary.counts_estimated:
        lines.append(
            Text(
                f"note        {summary.counts_estimated} requests: tokens per frame are estimates, "
                "the server sends frames of several tokens without their number",
            )
        )
    lines.extend(
        Text(f"INVALID     {reason}", style="bold red") for reason in summary.invalid_because
    )
    return Group(_latencies(summary), *lines)


def _latencies(summary: Summary) -> Table:
    table = Table(title="latency, milliseconds", title_justify="left")
    table.add_column("")
    for name in ("p50", "p90", "p99", "mean", "of"):
        table.add_column(name, justify="right")
    for label, quantiles in (
        ("TTFT from intended send", summary.ttft_from_arrival_s),
        ("TTFT from actual send", summary.ttft_from_send_s),
        ("TPOT", summary.tpot_s),
        ("ITL", summary.itl_s),
        ("E2E from intended send", summary.e2e_s),
        ("lateness of sends", summary.lateness_s),
    ):
        table.add_row(label, *_cells(quantiles))
    return table


def _cells(quantiles: Quantiles | None) -> list[str]:
    if quantiles is None:
        return ["-", "-", "-", "-", "0"]
    values = (quantiles.p50, quantiles.p90, quantiles.p99, quantiles.mean)
    return [*map(_milliseconds, values), f"{quantiles.count:,}"]


def _milliseconds(seconds: float) -> str:
    """Four significant digits below a second; microseconds do not matter above."""
    value = seconds * 1e3
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
