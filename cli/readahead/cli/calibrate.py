"""`readahead calibrate`: how long a model's iterations take on a device, from tables or logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from readahead.sim.calibration.fit import FitSettings
    from readahead.sim.calibration.points import Points
    from readahead.sim.calibration.profiles import Architecture, Device
    from readahead.sim.calibration.quality import Judged

NOT_CALIBRATED_EXIT = 1

Composed = Annotated[
    Path | None,
    typer.Option(help="CSV of kind,n_tok,n_seq,n_dec,pf_pairs,kv_tok,t_ms.", dir_okay=False),
]
Iterations = Annotated[
    list[Path] | None,
    typer.Option(
        help="A worker's log of iterations, JSON lines; may be given again.", dir_okay=False
    ),
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
VidurMlp = Annotated[
    Path | None,
    typer.Option(
        help="Vidur's mlp.csv of the model, in place of aiconfigurator's products.", dir_okay=False
    ),
]
ModelOption = Annotated[
    str, typer.Option("--model", help="Architecture, as llama-3.1-8b, or a Hugging Face folder.")
]
ModelName = Annotated[str, typer.Option(help="Of such a folder. Default: the folder's.")]
DeviceOption = Annotated[
    str, typer.Option("--device", help="a100-80g, a100-40g, h100, or another name with its memory.")
]
KvTokens = Annotated[
    int | None, typer.Option(help="KV that an engine has, in tokens. Default: what memory leaves.")
]
Curves = Annotated[
    bool | None,
    typer.Option(help="Fit what tiles and batch sizes do. Default: for tables, not for logs."),
]
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
Note = Annotated[str, typer.Option(help="Said of the machine in the profile's origin.")]
Out = Annotated[Path | None, typer.Option(help="Writes the profile there, JSON.", dir_okay=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where iterations come from, as given."""

    composed: Path | None
    iterations: tuple[Path, ...]
    llmservingsim: str
    aiconfigurator: str
    vidur_mlp: Path | None

    def check(self) -> None:
        """Raises typer.BadParameter unless exactly one is given."""
        given = (self.composed, self.iterations, self.llmservingsim, self.aiconfigurator)
        if sum(map(bool, given)) != 1:
            raise typer.BadParameter(
                "give one of --composed, --iterations, --llmservingsim and --aiconfigurator"
            )
        if self.vidur_mlp is not None and not self.aiconfigurator:
            raise typer.BadParameter("--vidur-mlp needs --aiconfigurator, for the attention")


def calibrate(  # one parameter per flag: typer reads them from here
    *,
    composed: Composed = None,
    iterations: Iterations = None,
    llmservingsim: Llmservingsim = "",
    aiconfigurator: Aiconfigurator = "",
    vidur_mlp: VidurMlp = None,
    model: ModelOption = "llama-3.1-8b",
    model_name: ModelName = "",
    device: DeviceOption = "a100-80g",
    memory_gib: MemoryGib = 0.0,
    memory_gb_s: MemoryGbS = 0.0,
    kv_tokens: KvTokens = None,
    planes: Planes = 8,
    starts: Starts = 2,
    mixing: Mixing = None,
    curves: Curves = None,
    seed: Seed = 1,
    points_max: PointsMax = 2000,
    note: Note = "",
    out: Out = None,
) -> None:
    """Fits the iteration-time model and says how well it predicts what it was not fitted to.

    Give one source. Exit status: 0 a model was fitted; 1 the source cannot be used; 2 wrong usage.
    """
    from readahead.core.latency.profile_text import to_text
    from readahead.sim.calibration.fit import FitSettings
    from readahead.sim.calibration.profiles import assemble, fitted, gpu

    source = Source(
        composed=composed,
        iterations=tuple(iterations or ()),
        llmservingsim=llmservingsim,
        aiconfigurator=aiconfigurator,
        vidur_mlp=vidur_mlp,
    )
    source.check()
    try:
        architecture = _architecture(model, model_name)
        target = gpu(device, memory_gib=memory_gib, memory_gb_s=memory_gb_s)
        settings = FitSettings(
            planes=planes,
            starts=starts,
            seed=seed,
            mixing=tuple(mixing or (1.0,)),
            has_curves=not source.iterations if curves is None else curves,
        )
        judged, story = _judged(source, architecture, target, settings, points_max)
        story += f"; {note}" if note else ""
        served = "" if source.iterations else architecture.name
        times = fitted(judged, source=story, model=served, on=device)
        profile = assemble(architecture, target, times, devices=1, kv_tokens=kv_tokens)
        _print(judged)
        if out is not None:
            out.write_text(to_text(profile), encoding="utf-8")
            typer.echo(f"wrote {out}")
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(NOT_CALIBRATED_EXIT) from error


def _architecture(model: str, name: str) -> Architecture:
    from readahead.sim.calibration.model_folder import read_architecture
    from readahead.sim.calibration.profiles import ARCHITECTURES

    if model in ARCHITECTURES:
        return ARCHITECTURES[model]
    if Path(model).is_dir():
        return read_architecture(Path(model), name=name)
    raise typer.BadParameter(
        f"--model must be a folder or one of {', '.join(ARCHITECTURES)}, is {model}"
    )


def _judged(
    source: Source,
    architecture: Architecture,
    device: Device,
    settings: FitSettings,
    points_max: int,
) -> tuple[Judged, str]:
    """The fit, and what it is of."""
    from readahead.sim.calibration.points import read_composed, read_iteration_log, thinned
    from readahead.sim.calibration.quality import judge, judge_logs

    if source.iterations:
        names = ", ".join(path.name for path in source.iterations)
        logs = [read_iteration_log(path) for path in source.iterations]
        story = f"workers' iterations: {names}"
        return judge_logs(logs, name=story, settings=settings), story
    if source.composed is not None:
        points, story = read_composed(source.composed), f"composed: {source.composed.name}"
    else:
        prefix = Path(source.llmservingsim or source.aiconfigurator)
        story = f"composed of operators: {prefix.name}"
        if source.vidur_mlp is not None:
            story += f", layers' products of {source.vidur_mlp.name}"
        points = _from_operators(source, architecture, device.memory_bytes_per_s)
    few = thinned(points, points_max, seed=settings.seed)
    return judge(few, name=story, settings=settings), story


def _from_operators(source: Source, architecture: Architecture, bytes_per_s: float) -> Points:
    from readahead.sim.calibration.operators import compose_aiconfigurator, read_llmservingsim

    if source.llmservingsim:
        attention, dense, per_sequence = (
            Path(f"{source.llmservingsim}_{table}.csv.gz")
            for table in ("attention", "dense", "per_sequence")
        )
        return read_llmservingsim(attention, dense, per_sequence, layers=architecture.layers)
    prefix = Path(source.aiconfigurator)
    return compose_aiconfigurator(
        prefix.parent,
        prefix=prefix.name,
        architecture=architecture,
        memory_bytes_per_s=bytes_per_s,
        vidur_mlp=source.vidur_mlp,
    )


def _print(judged: Judged) -> None:
    model = judged.model
    shape = f"{len(model.planes)} planes, mixing {model.mixing:g}"
    if model.tile_s is not None:
        shape += ", curves by tokens and requests"
    typer.echo(f"{judged.points} points, {judged.held_out}; {shape}")
    typer.echo(f"{'held out':10}{'points':>8}{'R2':>10}{'MAPE':>9}{'P95':>9}")
    for kind in judged.kinds:
        typer.echo(f"{kind.kind:10}{kind.points:8d}{kind.r2:10.4f}{kind.mape:9.2%}{kind.p95:9.2%}")
