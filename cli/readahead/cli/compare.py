"""`readahead compare`: the same workload against several endpoints, in alternating blocks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from readahead.cli.load_options import (
    ArrivalsOption,
    Ca,
    ClosedLoopUsers,
    ConcurrencyMax,
    DurationS,
    Endpoint,
    EndpointOption,
    FormatOption,
    Html,
    IgnoreEos,
    LengthScale,
    Model,
    ModelPath,
    Pace,
    Rate,
    RequestsMax,
    ScenarioOption,
    Seed,
    SloOption,
    TimeoutS,
    TimeScale,
    Tokens,
    TraceFile,
    WorkloadFile,
    ZeroLoad,
    require_extras,
    split_arguments,
)

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=]TARGET…", help="Two endpoints or more; the first is compared to."
    ),
]
Records = Annotated[
    list[str] | None,
    typer.Option(
        "--records",
        metavar="[NAME=]FILE",
        help="Records of runs that are over, instead of targets; files of one name are blocks.",
    ),
]
Blocks = Annotated[int, typer.Option(min=1, help="Runs of each endpoint.")]
RecordsFolder = Annotated[
    Path | None, typer.Option(help="Keeps the records of all blocks there.", file_okay=False)
]


def compare(  # one parameter per flag: typer reads them from here
    targets: Targets = None,
    *,
    records: Records = None,
    blocks: Blocks = 4,
    out: RecordsFolder = None,
    html: Html = None,
    workload: WorkloadFile = None,
    scenario: ScenarioOption = "",
    length_scale: LengthScale = None,
    arrivals: ArrivalsOption = "",
    rate: Rate = None,
    trace: TraceFile = None,
    trace_format: FormatOption = "",
    time_scale: TimeScale = None,
    closed_loop: ClosedLoopUsers = None,
    requests: RequestsMax = None,
    duration_s: DurationS = None,
    prompt_tokens: Tokens = "",
    output_tokens: Tokens = "",
    seed: Seed = None,
    model: Model = "",
    model_path: ModelPath = None,
    endpoint: EndpointOption = Endpoint.COMPLETIONS,
    concurrency_max: ConcurrencyMax = 1024,
    timeout_s: TimeoutS = 300.0,
    pace: Pace = None,
    ignore_eos: IgnoreEos = True,
    ca: Ca = None,
    zero_load_ttft: ZeroLoad = "",
    slo: SloOption = "",
) -> None:
    """Compares endpoints under the same workload; ratios have 95 % bootstrap intervals.

    Blocks alternate (ABAB), and block i of all endpoints has the same requests. Exit status: as
    of readahead load.
    """
    what, how = split_arguments(locals())
    require_extras()
    from rich.console import Console

    from readahead.cli.load_build import load_settings, parse_slo
    from readahead.core.reading.score import Ruler
    from readahead.loadgen.compare_run import CompareSettings, compare_records, compare_targets
    from readahead.loadgen.event_loop import loop_factory
    from readahead.loadgen.load_settings import Outputs, Screens

    if bool(targets) == bool(records):
        raise typer.BadParameter("either TARGET… or --records must be given")
    screens = Screens(out=Console(), err=Console(stderr=True))
    if records:
        groups = _groups(records)
        try:
            ruler = Ruler(slo=parse_slo(slo))
            status = compare_records(groups, ruler, html_path=html, screens=screens)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        raise typer.Exit(status)
    named = _named(targets or [])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    first, *_ = named.values()
    settings = load_settings(first, what, how, outputs=Outputs(html_path=html))
    comparison = CompareSettings(load=settings, targets=named, blocks=blocks, records_folder=out)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        raise typer.Exit(runner.run(compare_targets(comparison, screens)))


def _named(targets: list[str]) -> dict[str, str]:
    """Targets by their names: as given, else A, B, C …"""
    from readahead.loadgen.load_target import check_target

    if len(targets) < 2:
        raise typer.BadParameter(f"a comparison needs two targets or more, got {len(targets)}")
    named: dict[str, str] = {}
    for number, text in enumerate(targets):
        name, equals, target = text.partition("=")
        if not equals or "://" in name:
            name, target = chr(ord("A") + number % 26), text
        if name in named:
            raise typer.BadParameter(f"two targets are called {name!r}")
        try:
            check_target(target)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        named[name] = target
    return named


def _groups(records: list[str]) -> dict[str, list[Path]]:
    """Files by their names; without one each file is a system of its own."""
    groups: dict[str, list[Path]] = {}
    for text in records:
        name, equals, file = text.partition("=")
        path = Path(file if equals else text)
        groups.setdefault(name if equals else path.stem, []).append(path)
    return groups
