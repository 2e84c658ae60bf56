"""A run's numbers as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from readahead.loadgen.live_view import milliseconds
from readahead.loadgen.records import Outcome
from readahead.loadgen.report_runs import LoadRun
from readahead.loadgen.statistics import Quantiles, Summary
from readahead.loadgen.sweep import SweepPoint, is_bracketed, peak, sweep_capacity_req_s
from readahead.ruler.describe import ruler_text
from readahead.ruler.table import number_text


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


def score_report(run: LoadRun) -> RenderableType:
    """What the run was worth to its readers, in a few lines."""
    score = run.score.score
    idle, attained = score.user_idle_censored_s, score.slo_attainment
    cells = [
        f"smooth goodput {number_text(score.smooth_goodput_tok_s)} tok/s "
        f"(censored {number_text(score.smooth_goodput_censored_tok_s)})",
        f"of {number_text(score.throughput_tok_s)} delivered",
    ]
    if idle is not None:
        cells.append(f"idle p50 {number_text(idle.p50)} s, p99 {number_text(idle.p99)} s")
    if attained is not None:
        cells.append(f"promise kept {100 * attained:.1f} %")
    label = "" if run.label == "run" else f"{run.label}: "
    lines = [Text(f"readers     {label}{' · '.join(cells)}")]
    if run.zero_load_ttft is not None:
        base_s, slope = run.zero_load_ttft["base_s"], run.zero_load_ttft["per_token_s"]
        lines.append(
            Text(
                f"zero load   TTFT {base_s:.4g} s + {slope:.3g} s per prompt token "
                f"({run.zero_load_ttft['origin']})",
                style="dim",
            )
        )
    return Group(*lines)


def ruler_report(run: LoadRun) -> RenderableType:
    """What the scores depend on."""
    return Text(ruler_text(run.score.ruler), style="dim")


def sweep_report(points: Sequence[SweepPoint]) -> RenderableType:
    """All rates of a sweep, the peak marked."""
    best = peak(points)
    table = Table(title="sweep", title_justify="left")
    for name in ("req/s", "smooth goodput", "throughput", "promise", "TTFT p99, s", "valid"):
        table.add_column(name, justify="right")
    for point in points:
        score = point.score.score
        attained = score.slo_attainment
        table.add_row(
            f"{point.rate_req_s:g}" + (" (peak)" if point is best else ""),
            number_text(score.smooth_goodput_censored_tok_s),
            number_text(score.throughput_tok_s),
            "-" if attained is None else f"{100 * attained:.1f} %",
            number_text(score.ttft_s.p99 if score.ttft_s else None),
            "yes" if point.is_valid else "no",
            style="bold" if point is best else "",
        )
    lines = []
    if best is not None and not is_bracketed(points):
        lines.append(Text("the peak lies at the edge of the sweep: the true one may lie outside"))
    highest = sweep_capacity_req_s(points)
    said = "none" if highest is None else f"{highest:g} req/s"
    lines.append(Text(f"promises are kept (90 %) up to: {said}"))
    return Group(table, *lines)


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
    return [*map(milliseconds, values), f"{quantiles.count:,}"]
