"""What the runs of a page were told to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from readahead.loadgen.report_runs import LoadRun

LOUD_ENGINES = ("emulated", "simulated")
"""Nothing on such a page was measured on a model."""


def chips(runs: Sequence[LoadRun]) -> str:
    """What the runs are of, in a line of labels; the first run stands for all."""
    first = runs[0]
    settings = first.settings
    engines = dict.fromkeys(run.engine for run in runs)
    found = []
    for engine in engines:
        if engine in LOUD_ENGINES:
            found.append(f'<span class="chip loud">engine: {escape(engine)}, no model runs</span>')
        else:
            found.append(_chip("engine", engine or "not said by the target"))
    commit = str(first.description.get("commit") or "")
    found += [
        _chip(name, value)
        for name, value in (
            ("model", settings.get("model")),
            ("workload", settings.get("workload_summary") or settings.get("scenario")),
            ("seed", settings.get("seed")),
            ("requests", sum(run.score.score.requests for run in runs)),
            ("started", str(first.description.get("started_at", ""))[:19].replace("T", " ")),
            ("commit", commit[:12]),
            ("readahead", first.description.get("readahead_version")),
        )
        if value not in (None, "")
    ]
    return f'<div class="chips">{"".join(found)}</div>'


def _chip(name: str, value: object) -> str:
    return f'<span class="chip">{escape(name)}: {escape(str(value))}</span>'


def settings_table(settings: Mapping[str, object]) -> str:
    """All settings, folded away; empty where there are none."""
    rows = "".join(_setting_rows(settings))
    if not rows:
        return ""
    return (
        "<details><summary>Settings</summary>"
        f'<div class="wide settings-table"><table><tbody>{rows}</tbody></table></div></details>'
    )


def _setting_rows(settings: Mapping[str, object]) -> Iterable[str]:
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
