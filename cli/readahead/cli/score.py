"""`readahead score`: what people got to read, less what they waited, from anybody's logs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from readahead.core.reading.benefit import DEFAULT_ALPHA, DEFAULT_PACE_TOK_S, Form
from readahead.core.reading.curves import EndToEnd, Origin, Slo, TtftTbt, TtftTpot

if TYPE_CHECKING:
    from readahead.ruler.assess import Assessment, FileScore

NOT_SCORED_EXIT = 1


class LogFormat(StrEnum):
    """Formats of logs; without one given, each file is recognised."""

    INTERCHANGE = "interchange"
    VLLM_BENCH = "vllm-bench"
    GUIDELLM = "guidellm"
    AIPERF = "aiperf"
    GENAI_PERF = "genai-perf"
    CSV = "csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreArguments:
    """The command line, as given."""

    alpha: float
    form: Form
    pace: float | None
    offset_s: float
    origin: Origin
    slo: str
    zero_load_ttft: str
    observed_until: float | None
    percentiles: tuple[float, ...]
    format: LogFormat | None


Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help="Logs of runs.")]
Alpha = Annotated[float, typer.Option(help="Weight of idle time.")]
FormOption = Annotated[
    Form,
    typer.Option(help="What idle time l costs at pace v; F2 (seconds) is always shown beside it."),
]
Pace = Annotated[
    float | None,
    typer.Option(
        help="Tokens/s that users read, where the log does not say, or says it of users whose pace"
        f" the system was not told. Default: the log's, else {DEFAULT_PACE_TOK_S:g}."
    ),
]
OffsetS = Annotated[float, typer.Option(help="Seconds that users wait before they start to read.")]
OriginOption = Annotated[Origin, typer.Option(help="From when due times count.")]
SloOption = Annotated[
    str,
    typer.Option(
        metavar="BOUNDS",
        help="ttft=1,tbt=0.2 or ttft=1,tpot=0.2 or e2e=10, in seconds, where the log does not say."
        " Default: the reading curve itself.",
    ),
]
ZeroLoad = Annotated[
    str,
    typer.Option(
        metavar="LINE",
        help='TTFT of the idle system, as "0.02+0.0001*tokens"; what SLO classes promise is a'
        " multiple of it. Default: as the log says.",
    ),
]
ObservedUntil = Annotated[
    float | None,
    typer.Option(help="When observation ended, on the log's clock. Default: its last event."),
]
Percentiles = Annotated[
    list[float] | None,
    typer.Option("--percentile", help="One more percentile of each distribution, as 95."),
]
FormatOption = Annotated[LogFormat | None, typer.Option("--format", help="Of all files.")]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON object per run, a line each.")]
Html = Annotated[Path | None, typer.Option(help="Writes a page with plots there.", dir_okay=False)]


def score(  # one parameter per flag: typer reads them from here
    files: Files,
    *,
    alpha: Alpha = DEFAULT_ALPHA,
    form: FormOption = Form.F1,
    pace: Pace = None,
    offset_s: OffsetS = 0.0,
    origin: OriginOption = Origin.COMMIT,
    slo: SloOption = "",
    zero_load_ttft: ZeroLoad = "",
    observed_until: ObservedUntil = None,
    percentile: Percentiles = None,
    log_format: FormatOption = None,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Scores logs of serving systems: smooth goodput, user idle time, and the usual metrics.

    Reads records of readahead load, the interchange format, vllm bench serve --save-detailed,
    guidellm, aiperf, genai-perf, and CSV. Exit status: 0 all files were scored; 1 one could not
    be; 2 wrong usage.
    """
    arguments = ScoreArguments(
        alpha=alpha,
        form=form,
        pace=pace,
        offset_s=offset_s,
        origin=origin,
        slo=slo,
        zero_load_ttft=zero_load_ttft,
        observed_until=observed_until,
        percentiles=tuple(percentile or ()),
        format=log_format,
    )
    _require_extras()
    from readahead.ruler.assess import assess

    assessment = _assessment(arguments)
    scores = [assess(path, assessment) for path in files]
    _print(scores, as_json=as_json)
    if html is not None and any(one.runs for one in scores):
        from readahead.ruler.html_report import page

        try:
            html.write_text(page(scores), encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"--html: cannot write {html}: {error.strerror}") from error
        if not as_json:
            typer.echo(f"wrote {html}")
    raise typer.Exit(NOT_SCORED_EXIT if any(one.error for one in scores) else 0)


def parse_slo(text: str) -> Slo | None:
    """The objective that --slo names; None for none.

    Raises:
        typer.BadParameter: it names none.
    """
    if not text:
        return None
    try:
        pairs = [part.split("=", 1) for part in text.split(",")]
        bounds = {name.strip(): float(value) for name, value in pairs}
        match bounds:
            case {"ttft": ttft_s, "tbt": tbt_s} if len(bounds) == 2:
                return TtftTbt(ttft_s=ttft_s, tbt_s=tbt_s)
            case {"ttft": ttft_s, "tpot": tpot_s} if len(bounds) == 2:
                return TtftTpot(ttft_s=ttft_s, tpot_s=tpot_s)
            case {"e2e": e2e_s} if len(bounds) == 1:
                return EndToEnd(e2e_s=e2e_s)
    except ValueError as error:
        raise typer.BadParameter(f"--slo {text}: {error}") from error
    raise typer.BadParameter(f"--slo must be ttft=…,tbt=… or ttft=…,tpot=… or e2e=…, got {text}")


def _assessment(arguments: ScoreArguments) -> Assessment:
    from readahead.core.reading.score import Ruler
    from readahead.ruler.assess import Assessment
    from readahead.ruler.formats.detect import Format
    from readahead.ruler.promises import parse_zero_load_ttft

    if not 0 <= arguments.offset_s < math.inf:
        raise typer.BadParameter(f"--offset-s must be >= 0, got {arguments.offset_s}")
    for percent in arguments.percentiles:
        if not 0 <= percent <= 100:
            raise typer.BadParameter(f"--percentile must be within 0 and 100, got {percent}")
    try:
        ruler = Ruler(
            form=arguments.form,
            alpha=arguments.alpha,
            pace_tok_s=DEFAULT_PACE_TOK_S if arguments.pace is None else arguments.pace,
            offset_s=arguments.offset_s,
            origin=arguments.origin,
            slo=parse_slo(arguments.slo),
        )
        line = arguments.zero_load_ttft
        zero_load = parse_zero_load_ttft(line) if line else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return Assessment(
        ruler=ruler,
        observed_until_s=arguments.observed_until,
        percentiles=arguments.percentiles,
        form=None if arguments.format is None else Format(arguments.format.value),
        zero_load_ttft=zero_load,
        keeps_untold_paces=arguments.pace is None,
    )


def _print(scores: list[FileScore], *, as_json: bool) -> None:
    if as_json:
        from readahead.ruler.json_report import objects

        for one in scores:
            for fields in objects(one):
                typer.echo(json.dumps(fields))
        return
    from rich.console import Console

    from readahead.ruler.table import show

    show(scores, Console())


def _require_extras() -> None:
    """Arrays and plots are an extra: say so instead of showing a traceback."""
    try:
        import matplotlib
        import numpy
    except ImportError as error:
        typer.echo(f"error: {error}; install readahead[ruler]", err=True)
        raise typer.Exit(NOT_SCORED_EXIT) from error
    del matplotlib, numpy
