"""`readahead load`: offers load and reports what became of it."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    TellSlo,
    TimeoutS,
    TimeScale,
    Tokens,
    TraceFile,
    WorkloadFile,
    ZeroLoad,
    require_extras,
    split_arguments,
)

if TYPE_CHECKING:
    from readahead.loadgen.load_settings import Outputs

Target = Annotated[str, typer.Option(help="http(s)://host:port, grpc(s)://host:port.")]
Jsonl = Annotated[
    Path | None,
    typer.Option(help="Raw token times, a line per request; FILE.meta.json describes the run."),
]
Sweep = Annotated[
    str,
    typer.Option(
        metavar="RATES", help="One run per rate: FROM:TO:COUNT, as 1:16:6, or a list, as 1,2,4."
    ),
]
Assertions = Annotated[
    list[str] | None,
    typer.Option(
        "--assert", metavar="BOUND", help='As "smooth_goodput>=100" or "ttft_s.p99<=0.5".'
    ),
]
Junit = Annotated[
    Path | None, typer.Option(help="Writes the outcome of the assertions as XML.", dir_okay=False)
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutputArguments:
    """Where results go, as given."""

    jsonl: Path | None
    html: Path | None
    junit: Path | None
    assertions: tuple[str, ...]
    sweep: str


def load(  # one parameter per flag: typer reads them from here
    target: Target = "http://127.0.0.1:8000",
    *,
    workload: WorkloadFile = None,
    scenario: ScenarioOption = "",
    length_scale: LengthScale = None,
    arrivals: ArrivalsOption = "",
    rate: Rate = None,
    trace: TraceFile = None,
    trace_format: FormatOption = "",
    time_scale: TimeScale = None,
    closed_loop: ClosedLoopUsers = None,
    sweep: Sweep = "",
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
    tell_slo: TellSlo = False,
    assertions: Assertions = None,
    jsonl: Jsonl = None,
    html: Html = None,
    junit: Junit = None,
) -> None:
    """Offers load, open loop, with readers in it, and reports what became of it.

    Exit status: 0 measured; 1 the target cannot be used or nothing finished; 2 wrong usage;
    3 the run is invalid (sends were late, requests were dropped, interrupted); 4 records or
    report could not be written; 5 an assertion fails; 6 the target was lost during the run.
    """
    what, how = split_arguments(locals())
    given = OutputArguments(
        jsonl=jsonl, html=html, junit=junit, assertions=tuple(assertions or ()), sweep=sweep
    )
    require_extras()
    from rich.console import Console

    from readahead.cli.load_build import load_settings
    from readahead.loadgen.event_loop import loop_factory
    from readahead.loadgen.load import load as run_load
    from readahead.loadgen.load_settings import Screens
    from readahead.loadgen.sweep import parse_rates

    try:
        outputs, rates = _outputs(given), parse_rates(given.sweep) if given.sweep else []
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    settings = load_settings(
        target, what, how, records_path=jsonl, rates_req_s=tuple(rates), outputs=outputs
    )
    screens = Screens(out=Console(), err=Console(stderr=True))
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        raise typer.Exit(runner.run(run_load(settings, screens)))


def _outputs(given: OutputArguments) -> Outputs:
    from readahead.loadgen.assertions import parse_assertion
    from readahead.loadgen.load_settings import Outputs

    for path in (given.jsonl, given.html, given.junit):
        if path is not None and not path.absolute().parent.is_dir():
            raise typer.BadParameter(f"the folder of {path} does not exist")
    return Outputs(
        html_path=given.html,
        junit_path=given.junit,
        assertions=tuple(parse_assertion(text) for text in given.assertions),
    )
