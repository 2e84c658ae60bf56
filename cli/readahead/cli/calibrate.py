"""`readahead calibrate`: how long a model's iterations take on a device, from tables or logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from readahead.sim.calibration.points import Points
    from readahead.sim.calibration.profiles import Architecture
    from readahead.sim.calibration.quality import Judged

NOT_CALIBRATED_EXIT = 1

Composed = Annotated[
    Path | None,
    typer.Option(help="CSV of kind,n_tok,n_seq,n_dec,pf_pairs,kv_tok,t_ms.", dir_okay=False),
]
Iterations = Annotated[
    Path | None, typer.Option(help="A worker's log of iterations, JSON lines.", dir_okay=False)
]
Llmservingsim = Annotated[
    str,
    typer.Option(
        metavar="PREFIX",
        help="LLMServingSim's tables: PREFIX_attention.csv.gz, _dense and _per_sequence.",
    ),
]
Aiconfigurator = Annotated[
    str,
    typer.Option(
        metavar="PREFIX",
        help="aiconfigurator's tables: PREFIX_gemm_bf16.csv.gz and its two attentions.",
    ),
]
ModelOption = Annotated[str, typer.Option("--model", help="Architecture, as llama-3.1-8b.")]
DeviceOption = Annotated[str, typer.Option("--device", help="a100-80g, a100-40g or h100.")]
MemoryGib = Annotated[float, typer.Option(help="Of a device that has no name here.")]
MemoryGbS = Annotated[float, typer.Option(help="Memory bandwidth of such a device, GB/s.")]
Planes = Annotated[int, typer.Option(help="Most planes of the model.", min=1, max=32)]
Starts = Annotated[int, typer.Option(help="Fits from so many starts; the best is kept.", min=1)]
Mixing = Annotated[
    list[float] | None, typer.Option(help="A factor on past tokens in mixed batches to try.")
]
Seed = Annotated[int, typer.Option(help="Of the points held out and of the starts.")]
PointsMax = Annotated[
    int, typer.Option(help="Points used, drawn by the seed: a large grid need not be whole.", min=8)
]
Out = Annotated[Path | None, typer.Option(help="Writes the profile there, JSON.", dir_okay=False)]


def calibrate(  # one parameter per flag: typer reads them from here
    *,
    composed: Composed = None,
    iterations: Iterations = None,
    llmservingsim: Llmservingsim = "",
    aiconfigurator: Aiconfigurator = "",
    model: ModelOption = "llama-3.1-8b",
    device: DeviceOption = "a100-80g",
    memory_gib: MemoryGib = 0.0,
    memory_gb_s: MemoryGbS = 0.0,
    planes: Planes = 8,
    starts: Starts = 2,
    mixing: Mixing = None,
    seed: Seed = 1,
    points_max: PointsMax = 2000,
    out: Out = None,
) -> None:
    """Fits the iteration-time model and says how well it predicts what it was not fitted to.

    Give one source. Exit status: 0 a model was fitted; 1 the source cannot be used; 2 wrong usage.
    """
    from readahead.core.latency.profile_text import to_text
    from readahead.sim.calibration.fit import FitSettings
    from readahead.sim.calibration.points import thinned
    from readahead.sim.calibration.profiles import ARCHITECTURES, assemble, fitted, gpu
    from readahead.sim.calibration.quality import judge

    if sum(map(bool, (composed, iterations, llmservingsim, aiconfigurator))) != 1:
        raise typer.BadParameter(
            "give one of --composed, --iterations, --llmservingsim and --aiconfigurator"
        )
    if model not in ARCHITECTURES:
        raise typer.BadParameter(f"--model must be one of {', '.join(ARCHITECTURES)}, is {model}")
    architecture = ARCHITECTURES[model]
    try:
        target = gpu(device, memory_gib=memory_gib, memory_gb_s=memory_gb_s)
        settings = FitSettings(
            planes=planes, starts=starts, seed=seed, mixing=tuple(mixing or (1.0,))
        )
        if iterations or composed:
            points, source = _from_file(iterations=iterations, composed=composed)
        else:
            points = _from_operators(
                llmservingsim, aiconfigurator, architecture, target.memory_bytes_per_s
            )
            source = f"composed of operators: {Path(llmservingsim or aiconfigurator).name}"
        judged = judge(thinned(points, points_max, seed=seed), name=source, settings=settings)
        times = fitted(judged, source=source, model="" if iterations else model, on=device)
        profile = assemble(architecture, target, times, devices=1)
        _print(judged)
        if out is not None:
            out.write_text(to_text(profile), encoding="utf-8")
            typer.echo(f"wrote {out}")
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(NOT_CALIBRATED_EXIT) from error


def _from_file(*, iterations: Path | None, composed: Path | None) -> tuple[Points, str]:
    from readahead.sim.calibration.points import read_composed, read_iteration_log

    if iterations is not None:
        return read_iteration_log(iterations), f"a worker's iterations: {iterations.name}"
    if composed is None:
        raise ValueError("no source")
    return read_composed(composed), f"composed iterations: {composed.name}"


def _from_operators(
    llmservingsim: str, aiconfigurator: str, architecture: Architecture, bytes_per_s: float
) -> Points:
    from readahead.sim.calibration.operators import compose_aiconfigurator, read_llmservingsim

    if llmservingsim:
        attention, dense, per_sequence = (
            Path(f"{llmservingsim}_{table}.csv.gz")
            for table in ("attention", "dense", "per_sequence")
        )
        return read_llmservingsim(attention, dense, per_sequence, layers=architecture.layers)
    prefix = Path(aiconfigurator)
    return compose_aiconfigurator(
        prefix.parent,
        prefix=prefix.name,
        architecture=architecture,
        memory_bytes_per_s=bytes_per_s,
    )


def _print(judged: Judged) -> None:
    model = judged.model
    typer.echo(
        f"{judged.points} points, {judged.settings.held_out:.0%} held out (seed"
        f" {judged.settings.seed}); {len(model.planes)} planes, mixing {model.mixing:g}"
    )
    typer.echo(f"{'held out':10}{'points':>8}{'R2':>10}{'MAPE':>9}{'P95':>9}")
    for kind in judged.kinds:
        typer.echo(f"{kind.kind:10}{kind.points:8d}{kind.r2:10.4f}{kind.mape:9.2%}{kind.p95:9.2%}")
