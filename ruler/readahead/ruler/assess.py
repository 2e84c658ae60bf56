"""Scores files: each run in them, or why a file cannot be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from readahead.core.reading.score import Ruler
from readahead.ruler.formats.detect import Format
from readahead.ruler.gather import gather
from readahead.ruler.problems import FormatError, Problems
from readahead.ruler.promises import ZeroLoadTtft
from readahead.ruler.scoring import RunScore, score_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """How files are scored."""

    ruler: Ruler
    observed_until_s: float | None = None
    percentiles: tuple[float, ...] = ()
    """Beyond p50, p90 and p99."""
    form: Format | None = None
    """None: recognised, file by file."""
    zero_load_ttft: ZeroLoadTtft | None = None
    """None: as the files say."""
    keeps_untold_paces: bool = True
    """A pace in the log counts also where the system was not told it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScore:
    """What a file is worth."""

    file: str
    format: Format | None
    runs: tuple[RunScore, ...]
    problems: Problems
    error: str
    """Why it cannot be scored; empty otherwise."""


def assess(path: Path, assessment: Assessment) -> FileScore:
    """Scores each run of a file."""
    name = str(path)
    try:
        scored = gather(
            path,
            form=assessment.form,
            name=name,
            zero_load_ttft=assessment.zero_load_ttft,
            keeps_untold_paces=assessment.keeps_untold_paces,
        )
    except (FormatError, OSError) as error:
        what = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        return FileScore(file=name, format=None, runs=(), problems=Problems(file=name), error=what)
    runs = tuple(
        score_run(
            run,
            assessment.ruler,
            observed_until_s=assessment.observed_until_s,
            percentiles=assessment.percentiles,
        )
        for run in scored.runs
    )
    return FileScore(file=name, format=scored.format, runs=runs, problems=scored.problems, error="")


def runs_of(files: Sequence[FileScore]) -> list[RunScore]:
    """All runs, in the order of the files."""
    return [run for file in files for run in file.runs]
