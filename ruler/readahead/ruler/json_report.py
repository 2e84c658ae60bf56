"""The score as JSON: an object per run, and most files hold one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from readahead.core.reading.percentiles import Summary
from readahead.core.reading.timeline import Outcome
from readahead.core.reading.tricks import TricksReport
from readahead.ruler.assess import FileScore
from readahead.ruler.describe import promise_text
from readahead.ruler.problems import Problems
from readahead.ruler.scoring import RunScore

FINDINGS_MAX = 20
"""Of tricks that are given in full: all are counted."""

DISTRIBUTIONS = (
    "user_idle_s",
    "user_idle_censored_s",
    "ttft_s",
    "tbt_s",
    "tpot_s",
    "e2e_s",
    "andes_qoe",
    "fluidity_index",
)
NUMBERS = (
    "smooth_goodput_tok_s",
    "smooth_goodput_censored_tok_s",
    "slo_attainment",
    "goodput_req_s",
    "goodput_tok_s",
    "throughput_tok_s",
    "effective_throughput_tok_s",
)


def objects(file: FileScore) -> Iterator[dict[str, object]]:
    """An object for each run of a file, or one that says why it cannot be scored."""
    if file.error:
        yield {"file": file.file, "error": file.error}
    for run in file.runs:
        yield _object(run, file.problems)


def _object(found: RunScore, problems: Problems) -> dict[str, object]:
    run, score, ruler = found.run, found.score, found.ruler
    return {
        "file": run.file,
        "format": run.format,
        "run": run.label or None,
        **{name: getattr(score, name) for name in NUMBERS},
        "smooth_goodput_by_form": {
            form.value: {"literal_tok_s": both.literal_tok_s, "censored_tok_s": both.censored_tok_s}
            for form, both in found.by_form.items()
        },
        **{
            name: _distribution(getattr(score, name), found.more.get(name, {}))
            for name in DISTRIBUTIONS
        },
        "form": ruler.form.value,
        "alpha": ruler.alpha,
        "pace": _pace(found),
        "origin": ruler.origin.value,
        "offset_s": ruler.offset_s,
        "slo": promise_text(run, ruler),
        "requests": score.requests,
        "tokens": score.tokens,
        "tokens_read": int(found.each.read_tokens.sum()),
        "readerless": len(run.readerless),
        "duration_s": score.duration_s,
        "observed_until_s": found.observed.end_s,
        "offered_req_s": run.offered_req_s(),
        "outcomes": {one.value: score.outcomes.get(one, 0) for one in Outcome},
        "unanswered": int((run.tokens == 0).sum()),
        "token_times_estimated": run.estimated,
        "tricks": _tricks(found.tricks),
        "left_out": left_out(problems),
        "notes": list(run.notes),
    }


def _tricks(report: TricksReport) -> dict[str, object]:
    """What was found, with some cases in full."""
    fields = asdict(report)
    fields["findings"] = fields["findings"][:FINDINGS_MAX]
    fields["lines"] = report.lines()
    return fields


def left_out(problems: Problems) -> dict[str, object]:
    """What was wrong in a file: of all of its runs."""
    return {
        "requests": problems.left_out,
        "findings": {kind.value: count for kind, count in sorted(problems.counts.items())},
        "examples": [
            {"line": one.line, "kind": one.kind.value, "message": one.message}
            for one in problems.examples
        ],
    }


def _pace(found: RunScore) -> float:
    """The pace that all users have, or else their mean; the ruler's where nobody reads."""
    paces = found.each.paces_tok_s[found.each.has_reader]
    return float(paces.mean()) if len(paces) else found.ruler.pace_tok_s


def _distribution(
    summary: Summary | None, more: Mapping[str, float]
) -> dict[str, float | None] | None:
    if summary is None:
        return None
    return {**asdict(summary), **more}
