"""`readahead load`: offers load and reports what became of it."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from readahead.loadgen.load import LoadSettings


class Endpoint(StrEnum):
    """Which of OpenAI's two forms is asked for."""

    COMPLETIONS = "completions"
    CHAT = "chat"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadArguments:
    """The command line, as given."""

    target: str
    rate: float
    requests: int | None
    duration_s: float | None
    prompt_tokens: str
    output_tokens: str
    seed: int
    model: str
    model_path: Path | None
    endpoint: Endpoint
    concurrency_max: int
    timeout_s: float
    pace: float | None
    ignore_eos: bool
    jsonl: Path | None


Tokens = Annotated[str, typer.Option(help="128, or lognormal:median=200,sigma=0.8,max=2048.")]
RequestsMax = Annotated[
    int | None, typer.Option(min=1, help="End after this many. Default: 100 or --duration-s.")
]
DurationS = Annotated[float | None, typer.Option(help="End after arrivals of this many seconds.")]
ModelPath = Annotated[
    Path | None,
    typer.Option(help="Folder with tokenizer.json: prompts get their exact token lengths."),
]
ConcurrencyMax = Annotated[
    int,
    typer.Option(
        min=1, help="Most requests running at once. One more is dropped and the run is invalid."
    ),
]
Pace = Annotated[
    float | None, typer.Option(help="Tokens per second that users read, told to the server.")
]
IgnoreEos = Annotated[
    bool, typer.Option(help="Answers get their full length. An extension of OpenAI's form.")
]
Jsonl = Annotated[
    Path | None,
    typer.Option(help="Raw token times, a line per request; FILE.meta.json describes the run."),
]


def load(  # one parameter per flag: typer reads them from here
    target: Annotated[
        str, typer.Option(help="http://host:port, https://… or grpc://host:port.")
    ] = "http://127.0.0.1:8000",
    *,
    rate: Annotated[float, typer.Option(help="Mean arrivals per second (Poisson).")] = 1.0,
    requests: RequestsMax = None,
    duration_s: DurationS = None,
    prompt_tokens: Tokens = "128",
    output_tokens: Tokens = "64",
    seed: Annotated[int, typer.Option(help="Of arrivals, lengths and prompts.")] = 0,
    model: Annotated[str, typer.Option(help="Default: the only one served.")] = "",
    model_path: ModelPath = None,
    endpoint: Annotated[Endpoint, typer.Option(help="Form of requests.")] = Endpoint.COMPLETIONS,
    concurrency_max: ConcurrencyMax = 1024,
    timeout_s: Annotated[float, typer.Option(help="Of each request.")] = 300.0,
    pace: Pace = None,
    ignore_eos: IgnoreEos = True,
    jsonl: Jsonl = None,
) -> None:
    """Offers load at a stated rate, open loop, and reports latencies, throughput and outcomes.

    Exit status: 0 measured; 1 the target cannot be used or nothing finished; 2 wrong usage;
    3 the run is invalid (sends were late, requests were dropped, interrupted); 4 records lost.
    """
    arguments = LoadArguments(
        target=target,
        rate=rate,
        requests=100 if requests is None and duration_s is None else requests,
        duration_s=duration_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        seed=seed,
        model=model,
        model_path=model_path,
        endpoint=endpoint,
        concurrency_max=concurrency_max,
        timeout_s=timeout_s,
        pace=pace,
        ignore_eos=ignore_eos,
        jsonl=jsonl,
    )
    _require_extras()
    from rich.console import Console

    from readahead.loadgen.load import Screens
    from readahead.loadgen.load import load as run_load

    screens = Screens(out=Console(), err=Console(stderr=True))
    raise typer.Exit(asyncio.run(run_load(_settings(arguments), screens)))


def _require_extras() -> None:
    """The HTTP client and the tokenizers are an extra: say so instead of showing a traceback."""
    try:
        import aiohttp
        import tokenizers
    except ImportError as error:
        typer.echo(f"error: {error}; install readahead[loadgen]", err=True)
        raise typer.Exit(1) from error
    del aiohttp, tokenizers


def _settings(arguments: LoadArguments) -> LoadSettings:
    from readahead.loadgen.lengths import parse_lengths
    from readahead.loadgen.load import LoadSettings, check_target
    from readahead.loadgen.runner import RunLimits
    from readahead.loadgen.senders import SendOptions
    from readahead.loadgen.workload import WorkloadSpec

    for name in ("rate", "duration_s", "timeout_s", "pace"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < math.inf:
            raise typer.BadParameter(f"--{name.replace('_', '-')} must be positive, got {value}")
    try:
        check_target(arguments.target)
        workload = WorkloadSpec(
            seed=arguments.seed,
            rate_req_s=arguments.rate,
            requests=arguments.requests,
            duration_s=arguments.duration_s,
            prompt_lengths=parse_lengths(arguments.prompt_tokens),
            output_lengths=parse_lengths(arguments.output_tokens),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return LoadSettings(
        target=arguments.target,
        is_chat=arguments.endpoint is Endpoint.CHAT,
        workload=workload,
        options=SendOptions(
            model=arguments.model,
            timeout_s=arguments.timeout_s,
            pace_tok_s=arguments.pace,
            ignore_eos=arguments.ignore_eos,
        ),
        limits=RunLimits(requests_max=arguments.concurrency_max),
        model_path=arguments.model_path,
        records_path=arguments.jsonl,
        description=_description(arguments),
    )


def _description(arguments: LoadArguments) -> dict[str, object]:
    """The settings for the records' description, in JSON's types and with their units."""
    return {
        "target": arguments.target,
        "endpoint": arguments.endpoint.value,
        "seed": arguments.seed,
        "rate_req_s": arguments.rate,
        "requests": arguments.requests,
        "duration_s": arguments.duration_s,
        "prompt_tokens": arguments.prompt_tokens,
        "output_tokens": arguments.output_tokens,
        "tokenizer": str(arguments.model_path) if arguments.model_path else None,
        "pace_tok_s": arguments.pace,
        "timeout_s": arguments.timeout_s,
        "concurrency_max": arguments.concurrency_max,
        "ignore_eos": arguments.ignore_eos,
    }
