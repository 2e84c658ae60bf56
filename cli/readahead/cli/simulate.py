"""`readahead simulate`: one run of the router's own core in virtual time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from readahead.core.reading.benefit import DEFAULT_ALPHA

if TYPE_CHECKING:
    from rich.console import Console

    from readahead.core.reading.percentiles import Summary
    from readahead.sim.cluster import ClusterSpec
    from readahead.sim.faults import Fault
    from readahead.sim.run import RunOptions, SimulatedRun
    from readahead.sim.settings import ClusterSettings
    from readahead.workload.plan import Workload

USAGE_EXIT = 2
NOT_WRITTEN_EXIT = 4
OUTPUTS = ("jsonl", "trace_out")
"""Where results go says nothing of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateArguments:
    """The command line, as given."""

    workload: Path | None
    scenario: str | None
    trace: Path | None
    arrivals: str
    rate: float | None
    requests: int | None
    duration_s: float | None
    seed: int
    mean_up_s: float | None
    mean_down_s: float
    alpha: float
    keep_tokens: bool
    jsonl: Path | None
    trace_out: Path | None


Cluster = Annotated[
    Path | None, typer.Option("--cluster", help="TOML file of a cluster; flags go before it.")
]
Profile = Annotated[str | None, typer.Option(help="Model and device of the engines.")]
Prefill = Annotated[int | None, typer.Option(help="Prefill workers; 0: every worker does both.")]
Decode = Annotated[int | None, typer.Option(help="Decode workers.")]
LinkName = Annotated[str | None, typer.Option(help="Between workers, such as infiniband-h100.")]
Policy = Annotated[str | None, typer.Option(help="Of every engine, such as vllm-chunked.")]
Knobs = Annotated[
    list[str] | None, typer.Option("--knob", metavar="NAME=NUMBER", help="One of the policy's.")
]
HostGb = Annotated[
    float | None, typer.Option(min=0, help="Host memory of each worker for parked KV, GB.")
]
WorkloadFile = Annotated[Path | None, typer.Option("--workload", help="TOML file of a workload.")]
Scenario = Annotated[str | None, typer.Option(help="chatbot, coder, …; instead of a file.")]
TraceFile = Annotated[Path | None, typer.Option("--trace", help="A trace; instead of a file.")]
ArrivalsText = Annotated[
    str, typer.Option("--arrivals", help="Of --scenario: gamma:rate=4,cv=2; instead of --rate.")
]
Rate = Annotated[
    float | None, typer.Option(help="Mean arrivals per second; a trace's own is kept.")
]
Requests = Annotated[int | None, typer.Option(min=1, help="End after so many sessions.")]
DurationS = Annotated[float | None, typer.Option(help="End after arrivals of this many seconds.")]
Seed = Annotated[int, typer.Option(help="Of workload, noise and failures.")]
TrueScale = Annotated[
    float | None, typer.Option(help="True iteration times over those that schedulers believe.")
]
NoiseSigma = Annotated[
    float | None, typer.Option(help="Of the logarithm of each true iteration time.")
]
MeanUpS = Annotated[
    float | None, typer.Option(help="Workers fail after this long on average. Default: never.")
]
MeanDownS = Annotated[float, typer.Option(help="How long they are then gone, on average.")]
Alpha = Annotated[float, typer.Option(help="Weight of idle time in smooth goodput.")]
KeepTokens = Annotated[
    bool, typer.Option(help="Without: less memory, and percentiles of TBT within 1 %.")
]
Jsonl = Annotated[
    Path | None, typer.Option(help="Simulated token times, a line per request.", dir_okay=False)
]
TraceOut = Annotated[
    Path | None, typer.Option(help="What engines did, for a trace viewer.", dir_okay=False)
]


def simulate(  # one parameter per flag: typer reads them from here
    *,
    cluster: Cluster = None,
    profile: Profile = None,
    prefill: Prefill = None,
    decode: Decode = None,
    link: LinkName = None,
    policy: Policy = None,
    knob: Knobs = None,
    host_gb: HostGb = None,
    workload: WorkloadFile = None,
    scenario: Scenario = None,
    trace: TraceFile = None,
    arrivals: ArrivalsText = "",
    rate: Rate = None,
    requests: Requests = None,
    duration_s: DurationS = None,
    seed: Seed = 0,
    true_scale: TrueScale = None,
    noise_sigma: NoiseSigma = None,
    mean_up_s: MeanUpS = None,
    mean_down_s: MeanDownS = 10.0,
    alpha: Alpha = DEFAULT_ALPHA,
    keep_tokens: KeepTokens = True,
    jsonl: Jsonl = None,
    trace_out: TraceOut = None,
) -> None:
    """Simulates a cluster that nobody has: the router's own decisions over modelled engines.

    Nothing is measured; all times come from a model. Same arguments, same bytes.
    Exit status: 0 done; 2 wrong usage; 4 a file could not be written.
    """
    chosen = {
        "profile": profile,
        "prefill": prefill,
        "decode": decode,
        "link": link,
        "policy": policy,
        "true_scale": true_scale,
        "noise_sigma": noise_sigma,
        "host_bytes": None if host_gb is None else round(host_gb * 1e9),
    }
    overrides: dict[str, object] = {k: v for k, v in chosen.items() if v is not None}
    if knob:
        overrides["knobs"] = _knobs(knob)
    arguments = SimulateArguments(
        workload=workload,
        scenario=scenario,
        trace=trace,
        arrivals=arrivals,
        rate=rate,
        requests=requests,
        duration_s=duration_s,
        seed=seed,
        mean_up_s=mean_up_s,
        mean_down_s=mean_down_s,
        alpha=alpha,
        keep_tokens=keep_tokens,
        jsonl=jsonl,
        trace_out=trace_out,
    )
    _require_extras()
    raise typer.Exit(_simulate(cluster, overrides, arguments))


def _require_extras() -> None:
    try:
        import numpy
        import rich
    except ImportError as error:
        typer.echo(f"error: {error}; install readahead[sim]", err=True)
        raise typer.Exit(1) from error
    del numpy, rich


def _knobs(given: list[str]) -> dict[str, int | float]:
    knobs: dict[str, int | float] = {}
    for one in given:
        name, _, value = one.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise typer.BadParameter(f"--knob must be NAME=NUMBER, got {one!r}") from None
        knobs[name.strip()] = int(number) if number.is_integer() and "." not in value else number
    return knobs


def _simulate(cluster: Path | None, overrides: dict[str, object], given: SimulateArguments) -> int:
    from rich.console import Console

    from readahead.sim.run import simulate as run
    from readahead.sim.settings import load_settings

    try:
        settings = load_settings(cluster, overrides)
        spec = settings.spec()
        sessions = _workload(given)
        options = _options(given, spec, sessions)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        with contextlib.ExitStack() as files:
            if given.jsonl is not None:
                from readahead.sim.results import RecordWriter

                file = files.enter_context(given.jsonl.open("w", encoding="utf-8"))
                options = dataclasses.replace(options, record=RecordWriter(file).add)
            found = run(spec, sessions, options)
        _write(given, settings, found, options)
    except OSError as error:
        typer.echo(f"error: cannot write {error.filename}: {error.strerror}", err=True)
        return NOT_WRITTEN_EXIT
    _print(found, settings, sessions, Console())
    return 0


def _workload(given: SimulateArguments) -> Workload:
    from readahead.workload.plan import plan
    from readahead.workload.spec import Limits, read_workload_spec, workload_spec

    sources = [given.workload, given.scenario, given.trace]
    if sum(one is not None for one in sources) != 1:
        raise ValueError("say one of --workload, --scenario and --trace")
    if given.workload is not None:
        if given.rate is not None or given.arrivals:
            raise ValueError("--rate and --arrivals are the workload file's")
        spec = read_workload_spec(given.workload)
        limits = Limits(
            sessions=given.requests or spec.limits.sessions,
            duration_s=given.duration_s or spec.limits.duration_s,
        )
        return plan(dataclasses.replace(spec, limits=limits, seed=given.seed or spec.seed))
    arrivals: object = given.arrivals or {"kind": "poisson", "rate_req_s": given.rate or 1.0}
    if given.trace is not None:
        arrivals = {"kind": "trace", "path": given.trace, "rate_req_s": given.rate}
    requests = given.requests
    if given.trace is None and requests is None and given.duration_s is None:
        requests = 100
    return plan(
        workload_spec(
            {
                "mix": [{"scenario": given.scenario or "trace"}],
                "arrivals": arrivals,
                "seed": given.seed,
                "limits": {"sessions": requests, "duration_s": given.duration_s},
            }
        )
    )


def _options(given: SimulateArguments, spec: ClusterSpec, sessions: Workload) -> RunOptions:
    from readahead.core.reading.score import Ruler
    from readahead.sim.faults import fault_plan
    from readahead.sim.run import RunOptions
    from readahead.sim.trace_export import ChromeTrace

    faults: tuple[Fault, ...] = ()
    if given.mean_up_s is not None:
        for name in ("mean_up_s", "mean_down_s"):
            if not 0 < getattr(given, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} must be positive")
        faults = fault_plan(
            [worker_id for worker_id, _ in spec.worker_ids()],
            seed=given.seed,
            until_s=sessions.duration_s,
            mean_up_s=given.mean_up_s,
            mean_down_s=given.mean_down_s,
        )
    return RunOptions(
        ruler=Ruler(alpha=given.alpha),
        seed=given.seed,
        faults=faults,
        keeps_tokens=given.keep_tokens,
        trace=None if given.trace_out is None else ChromeTrace(),
    )


def _write(
    given: SimulateArguments, settings: ClusterSettings, found: SimulatedRun, options: RunOptions
) -> None:
    import json

    if given.jsonl is not None:
        stated = {
            "kind": "readahead-simulate",
            "simulated": True,
            "format_version": 1,
            "settings": {
                "cluster": dataclasses.asdict(settings),
                **{k: _plain(v) for k, v in dataclasses.asdict(given).items() if k not in OUTPUTS},
                "rate_req_s": given.rate,
            },
            "results": dataclasses.asdict(found.score),
            "workers": [dataclasses.asdict(worker) for worker in found.workers],
            "duration_s": found.duration_s,
        }
        path = given.jsonl.with_name(given.jsonl.name + ".meta.json")
        path.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    if given.trace_out is not None and options.trace is not None:
        with given.trace_out.open("w", encoding="utf-8") as file:
            options.trace.write(file)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _print(
    found: SimulatedRun, settings: ClusterSettings, sessions: Workload, console: Console
) -> None:
    from rich.table import Table

    score = found.score
    shape = f"{settings.prefill}P+{settings.decode}D" if settings.prefill else f"{settings.decode}"
    table = Table(title=f"SIMULATED: {shape} x {settings.profile}, {settings.policy}")
    for column in ("", "mean", "p50", "p90", "p99"):
        table.add_column(column, justify="left" if not column else "right")
    for name, one in (
        ("TTFT, s", score.ttft_s),
        ("TBT, s", score.tbt_s),
        ("TPOT, s", score.tpot_s),
        ("E2E, s", score.e2e_s),
        ("user idle, s", score.user_idle_s),
    ):
        table.add_row(name, *_numbers(one))
    console.print(table)
    workers = Table(title="Workers (simulated)")
    for column in ("worker", "busy", "iterations", "tokens made", "preemptions", "pulls", "lives"):
        workers.add_column(column, justify="left" if column == "worker" else "right")
    for worker in found.workers:
        workers.add_row(
            worker.worker_id,
            f"{worker.utilisation:.0%}",
            f"{worker.iterations:,}",
            f"{worker.tokens_made:,}",
            f"{worker.preemptions:,}",
            f"{worker.pulls:,}",
            f"{worker.incarnations}",
        )
    console.print(workers)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in score.outcomes.items())
    loop = "closed loop" if sessions.concurrency is not None else "open loop"
    lines = (
        f"{score.requests} requests of {len(sessions)} sessions, {loop}: {outcomes}",
        f"smooth goodput {_rate(score.smooth_goodput_tok_s)} tok/s"
        f" (censored {_rate(score.smooth_goodput_censored_tok_s)}),"
        f" throughput {_rate(score.throughput_tok_s)} tok/s,"
        f" SLO attainment {_rate(score.slo_attainment)}",
        f"{found.moved_bytes / 1e9:.1f} GB of KV in {found.transfers:,} transfers;"
        f" {found.duration_s:.1f} s of virtual time",
        *_parking(found, settings),
        "simulated: computed by a model, nothing was measured",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _parking(found: SimulatedRun, settings: ClusterSettings) -> list[str]:
    if not settings.host_bytes:
        return []
    parks = sum(worker.parks for worker in found.workers)
    copied_gb = math.fsum(worker.copied_bytes for worker in found.workers) / 1e9
    return [f"{parks:,} parks, {copied_gb:,.1f} GB of KV copied to host memory and back"]


def _numbers(one: Summary | None) -> list[str]:
    if one is None:
        return ["-"] * 4
    return [f"{value:.4g}" for value in (one.mean, one.p50, one.p90, one.p99)]


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"
