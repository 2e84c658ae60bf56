"""Reads a run's records back for a report: the ruler's score, and what only our records say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from readahead.core.reading.score import Ruler
from readahead.loadgen.meta import meta_path
from readahead.ruler.gather import gather
from readahead.ruler.problems import Problems
from readahead.ruler.promises import ZeroLoadTtft
from readahead.ruler.run import Flags, Floats
from readahead.ruler.scoring import RunScore, score_run


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRun:
    """One run of load."""

    label: str
    """What it is called on the page."""
    score: RunScore
    description: Mapping[str, object]
    """FILE.meta.json; empty where there is none."""
    lateness_s: Floats
    """Of each session's first send; nan for later turns, and where the record does not say."""
    scenarios: tuple[str, ...]
    tenants: tuple[str, ...]
    """Of each request; empty strings where the record does not say."""
    problems: Problems = field(default_factory=lambda: Problems(file=""))

    @property
    def settings(self) -> Mapping[str, object]:
        """The settings as the description has them."""
        settings = self.description.get("settings")
        return settings if isinstance(settings, Mapping) else {}

    @property
    def invalid_because(self) -> tuple[str, ...]:
        """Why the run measured something other than it was told to."""
        results = self.description.get("results")
        reasons = results.get("invalid_because") if isinstance(results, Mapping) else None
        return tuple(str(one) for one in reasons) if isinstance(reasons, list) else ()

    @property
    def played_idle_s(self) -> Floats:
        """How long each reader waited as the generator played him; nan where it played none."""
        run = self.score.run
        idle_s = np.full(run.requests, np.nan)
        idle_s[list(run.reader_idle_s)] = list(run.reader_idle_s.values())
        return idle_s

    @property
    def engine(self) -> str:
        """What the target says it runs; empty where it does not."""
        engine = self.description.get("engine")
        return engine if isinstance(engine, str) else ""

    @property
    def zero_load_ttft(self) -> Mapping[str, object] | None:
        """How the promises' zero-load TTFT came about."""
        found = self.description.get("zero_load_ttft")
        return found if isinstance(found, Mapping) else None

    def only(self, kept: Flags) -> RunScore:
        """The score of some of its requests, over the whole run's time."""
        part = self.score.run.where(kept)
        return score_run(part, self.score.ruler, observed_until_s=self.score.observed.end_s)

    def groups(self, of: tuple[str, ...]) -> dict[str, Flags]:
        """Requests by what `of` calls them; none where there are not several."""
        names = sorted(set(of))
        if len(names) < 2:
            return {}
        column = np.array(of)
        return {name: column == name for name in names}


def read_run(
    path: Path, ruler: Ruler, *, label: str = "", zero_load_ttft: ZeroLoadTtft | None = None
) -> LoadRun:
    """The run in a file of records; the zero-load TTFT is its description's if not given.

    Raises:
        FormatError: nothing in it can be scored.
        OSError: it cannot be read.
    """
    found = gather(path, name=str(path), zero_load_ttft=zero_load_ttft)
    run = found.runs[0]
    records = _records(path)
    of = [records.get(request_id, {}) for request_id in run.request_ids]
    return LoadRun(
        label=label or path.stem,
        score=score_run(run, ruler),
        description=description_of(path),
        lateness_s=np.array([_lateness_s(fields) for fields in of]),
        scenarios=tuple(_name(fields, "scenario") for fields in of),
        tenants=tuple(_name(fields, "tenant") for fields in of),
        problems=found.problems,
    )


def _records(path: Path) -> dict[str, Mapping[str, object]]:
    """The lines as they are, without their times; the ruler has said what is wrong with them."""
    found: dict[str, Mapping[str, object]] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if isinstance(fields, dict) and "request_id" in fields:
                fields.pop("token_times_s", None)
                found[str(fields["request_id"])] = fields
    return found


def description_of(path: Path) -> Mapping[str, object]:
    """The description that lies beside records; empty where there is none."""
    try:
        found = json.loads(meta_path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lateness_s(fields: Mapping[str, object]) -> float:
    if fields.get("turn", 0) != 0:
        return float("nan")
    sent_s, arrival_s = fields.get("sent_s"), fields.get("arrival_s")
    if isinstance(sent_s, int | float) and isinstance(arrival_s, int | float):
        return float(sent_s) - float(arrival_s)
    return float("nan")


def _name(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
