"""Flags that `readahead load` and `readahead compare` share, and how they become settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass


class Endpoint(StrEnum):
    """Which of OpenAI's two forms is asked for."""

    COMPLETIONS = "completions"
    CHAT = "chat"


Rate = Annotated[
    float | None,
    typer.Option(help="Mean arrivals per second. Default: 1, or as the workload or trace has it."),
]
ArrivalsOption = Annotated[
    str, typer.Option(metavar="KIND:…", help='As "gamma:rate=4,cv=2". Default: Poisson.')
]
WorkloadFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.toml", help="A workload file; other flags override its numbers."),
]
ScenarioOption = Annotated[
    str, typer.Option(metavar="NAME", help="chatbot, coder, summarization, mixed, tool-calling …")
]
LengthScale = Annotated[
    float | None,
    typer.Option(help="All lengths of the scenario times this, for small models; labelled."),
]
TraceFile = Annotated[
    Path | None, typer.Option(help="Arrivals and lengths as recorded.", exists=True, dir_okay=False)
]
FormatOption = Annotated[
    str, typer.Option("--format", help="Of the trace. Default: told by its first line.")
]
TimeScale = Annotated[
    float | None, typer.Option(help="Replays the trace this many times as fast as recorded.")
]
ClosedLoopUsers = Annotated[
    int | None,
    typer.Option(metavar="N", help="N users, each with one request at a time; no open loop."),
]
Tokens = Annotated[str, typer.Option(help="128, or lognormal:median=200,sigma=0.8,max=2048.")]
RequestsMax = Annotated[
    int | None,
    typer.Option(min=1, help="End after this many (sessions). Default: 100 or --duration-s."),
]
DurationS = Annotated[float | None, typer.Option(help="End after arrivals of this many seconds.")]
Seed = Annotated[
    int | None, typer.Option(help="Of arrivals, lengths, readers and prompts. Default: 0.")
]
Model = Annotated[str, typer.Option(help="Default: the only one served.")]
ModelPath = Annotated[
    Path | None,
    typer.Option(help="Folder with tokenizer.json: prompts get their exact token lengths."),
]
EndpointOption = Annotated[Endpoint, typer.Option(help="Form of requests.")]
ConcurrencyMax = Annotated[
    int,
    typer.Option(
        min=1, help="Most requests running at once. One more is dropped and the run is invalid."
    ),
]
TimeoutS = Annotated[float, typer.Option(help="Of each request.")]
Pace = Annotated[
    float | None, typer.Option(help="Tokens per second that users read, told to the server.")
]
IgnoreEos = Annotated[
    bool, typer.Option(help="Answers get their full length. An extension of OpenAI's form.")
]
Ca = Annotated[
    Path | None,
    typer.Option(help="PEM file of the authority behind the target's certificate.", exists=True),
]
ZeroLoad = Annotated[
    str,
    typer.Option(
        metavar="LINE",
        help='TTFT of the idle system, as "0.02+0.0001*tokens"; what scenarios promise is a'
        " multiple of it. Default: measured before the run.",
    ),
]
TellSlo = Annotated[
    bool,
    typer.Option(
        "--tell-slo", help="Requests say what their scenario promises; for a Readahead router."
    ),
]
SloOption = Annotated[
    str,
    typer.Option(
        metavar="BOUNDS",
        help="ttft=1,tbt=0.2 or ttft=1,tpot=0.2 or e2e=10, seconds, where a scenario promises "
        "nothing. Default: the reading curve.",
    ),
]
Html = Annotated[
    Path | None, typer.Option(help="Writes the report as one page there.", dir_okay=False)
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadArguments:
    """What is offered, as given."""

    rate: float | None
    arrivals: str
    workload: Path | None
    scenario: str
    length_scale: float | None
    trace: Path | None
    trace_format: str
    time_scale: float | None
    closed_loop: int | None
    requests: int | None
    duration_s: float | None
    prompt_tokens: str
    output_tokens: str
    seed: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TargetArguments:
    """How the target is asked, as given."""

    model: str
    model_path: Path | None
    endpoint: Endpoint
    concurrency_max: int
    timeout_s: float
    pace: float | None
    ignore_eos: bool
    ca: Path | None
    zero_load_ttft: str
    slo: str
    tell_slo: bool = False


def split_arguments(given: Mapping[str, object]) -> tuple[WorkloadArguments, TargetArguments]:
    """The two halves of a command's flags, by their names."""
    halves = [
        {field.name: given[field.name] for field in dataclasses.fields(kind) if field.name in given}
        for kind in (WorkloadArguments, TargetArguments)
    ]
    workload, target = halves
    return WorkloadArguments(**workload), TargetArguments(**target)  # type: ignore[arg-type]


def check_numbers(*, positive: Mapping[str, float | None]) -> None:
    """Raises typer.BadParameter for a number that must be positive and finite and is not."""
    for name, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise typer.BadParameter(f"--{name.replace('_', '-')} must be positive, got {value}")


def require_extras() -> None:
    """The HTTP client and the tokenizers are an extra: say so instead of showing a traceback."""
    try:
        import aiohttp
        import matplotlib
        import tokenizers
    except ImportError as error:
        typer.echo(f"error: {error}; install readahead[loadgen]", err=True)
        raise typer.Exit(1) from error
    del aiohttp, matplotlib, tokenizers
