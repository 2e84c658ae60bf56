"""The page of an experiment, made of its rows alone: same rows, same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from readahead.core.latency.profile_text import profile
from readahead.sim.experiments.experiment import Claim, Experiment, Findings, Verdict
from readahead.sim.experiments.raw_rows import FILE, Origin

PAGE = "README.md"
MADE = "<!-- made by `readahead reproduce`; edit the experiment, not this page -->"
TAGS = (
    "The paper's numbers: [P] its own words; [S] a summary of it, to be taken as a shape and not "
    "as a fact; [D] an independent digest; [R] reconstructed from it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """An experiment, what it was run with, and what it says."""

    experiment: Experiment
    origin: Origin
    findings: Findings


def write_page(folder: Path, reported: Reported) -> None:
    """Writes page and pictures.

    Raises:
        OSError: the disk does not take them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for figure in reported.findings.figures:
        (folder / figure.file).write_bytes(figure.png)
    (folder / PAGE).write_text(page(reported), encoding="utf-8")


def page(reported: Reported) -> str:
    """The page's text."""
    tried, origin, findings = reported.experiment, reported.origin, reported.findings
    parts = [
        f"# {tried.title}",
        MADE,
        "**Simulated**: computed by a model of engines, nothing was measured on a GPU.",
        tried.asked,
        f"Verdict: **{overall(findings.claims)}**.",
        "## Findings",
        _claims(findings.claims),
        TAGS,
    ]
    for figure in findings.figures:
        parts += [f"![{figure.caption}]({figure.file})", figure.caption]
    for table in findings.tables:
        parts += [f"## {table.title}", _table(table.columns, table.rows)]
        parts += [table.note] if table.note else []
    parts += ["## Set-up", *_list(tried.set_up)]
    if findings.notes:
        parts += ["## To bear in mind", *_list(findings.notes)]
    parts += ["## Calibration", *_calibration(tried.profiles)]
    parts += [
        "## Again",
        f"```\n{origin.command}\n```",
        f"{origin.seeds} seeds, scope {origin.scope.value}, commit {origin.commit}. "
        f"Raw rows: [{FILE}]({FILE}); all numbers here come from them. Intervals are 95 %, by "
        "Student's t over seeds.",
    ]
    return "\n\n".join(parts) + "\n"


def overall(claims: Iterable[Claim]) -> Verdict:
    """One word for all findings: what was not run does not count, unless nothing was."""
    found = {claim.verdict for claim in claims} - {Verdict.NOT_RUN}
    if not found:
        return Verdict.NOT_RUN
    return found.pop() if len(found) == 1 else Verdict.PARTLY


def summary_page(every: Sequence[Reported], others: str = "") -> str:
    """The page of all experiments."""
    return (
        "\n\n".join(
            [
                "# Experiments",
                MADE,
                "Findings of [Revisiting SLO and Goodput Metrics]"
                "(https://arxiv.org/abs/2410.14257), done again by `readahead reproduce`; "
                "how: [reproduce the findings](../docs/how-to/reproduce-the-findings.md). "
                "**All of it is simulated**: nothing was measured on a GPU.",
                summary_table(every),
                TAGS,
                *([others] if others else []),
            ]
        )
        + "\n"
    )


def summary_table(every: Sequence[Reported], *, links: str = "") -> str:
    """All findings of all experiments; `links` goes before each folder's name."""
    rows = []
    for one in every:
        name = one.experiment.name
        for claim in one.findings.claims:
            link = f"[{name}]({links}{name}/{PAGE})"
            rows.append((link, claim.finding, claim.paper, claim.ours, _verdict(claim)))
    return _table(("experiment", "finding", "paper", "ours, simulated", "verdict"), rows)


def _verdict(claim: Claim) -> str:
    return f"**{claim.verdict.value}**"


def _claims(claims: Sequence[Claim]) -> str:
    rows = []
    for one in claims:
        verdict = f"{_verdict(one)}: {one.why}" if one.why else _verdict(one)
        rows.append((one.finding, one.paper, one.ours, verdict))
    return _table(("finding", "paper", "ours, simulated", "verdict"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(sentences: Iterable[str]) -> list[str]:
    return ["\n".join(f"- {sentence}" for sentence in sentences)]


def _calibration(names: Iterable[str]) -> list[str]:
    """How well each profile's iteration times are known."""
    rows = []
    for name in names:
        found = profile(name)
        if found.fit is None:
            rows.append((name, "-", "-", "not fitted: published coefficients"))
            continue
        rows += [
            (name, kind.kind, f"{kind.r2:.4f}", f"{100 * kind.mape:.1f} %")
            for kind in found.fit.kinds
        ]
    return [
        "Iteration times on points held out of the fit; sums of kernels, so that whole servers "
        "may differ more: [calibration](../calibration/README.md).",
        _table(("profile", "kind", "R²", "MAPE"), rows),
    ]
