"""What a run must come up to: `--assert "ttft_s.p99<=0.5"`, and a report of it for CI."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from readahead.core.reading.percentiles import Summary, percentile
from readahead.ruler.columns import gaps_s
from readahead.ruler.json_report import DISTRIBUTIONS, NUMBERS
from readahead.ruler.scoring import RunScore

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
STATISTICS = ("mean", "p50", "p90", "p99", "count")
"""Of a distribution; further percentiles are pNN or pNN.N."""
ALIASES = {
    "smooth_goodput": "smooth_goodput_tok_s",
    "smooth_goodput_censored": "smooth_goodput_censored_tok_s",
    "throughput": "throughput_tok_s",
    "goodput": "goodput_req_s",
}
"""What people type for it."""
COUNTS = ("requests", "tokens", "duration_s")
_FORM = re.compile(r"\s*([A-Za-z_][\w]*)(?:\.([\w.]+?))?\s*(>=|<=|==|>|<)\s*(\S+)\s*")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A bound of one number."""

    text: str
    """As it was given."""
    metric: str
    statistic: str
    """Empty for a plain number."""
    comparison: str
    bound: float

    def value(self, found: RunScore) -> float | None:
        """What the run has; None: the number is undefined, which fails any bound."""
        if not self.statistic:
            value = getattr(found.score, self.metric)
            return None if value is None else float(value)
        summary: Summary | None = getattr(found.score, self.metric)
        if summary is None:
            return None
        if self.statistic in STATISTICS:
            return float(getattr(summary, self.statistic))
        return _percentile(found, self.metric, float(self.statistic[1:]))

    def holds(self, value: float | None) -> bool:
        """Whether this value is within the bound."""
        return value is not None and OPERATORS[self.comparison](value, self.bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An assertion and what became of it."""

    assertion: Assertion
    run: str
    value: float | None

    @property
    def is_held(self) -> bool:
        """Whether the run came up to it."""
        return self.assertion.holds(self.value)

    def __str__(self) -> str:
        verdict = "holds" if self.is_held else "FAILS"
        is_value = "is undefined" if self.value is None else f"is {self.value:.6g}"
        return f"{verdict}: {self.assertion.text}, {is_value}"


def parse_assertion(text: str) -> Assertion:
    """Reads "METRIC[.STATISTIC] OP NUMBER".

    Raises:
        ValueError: it is none; the message says what was expected.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(
            f"an assertion is METRIC[.STATISTIC] {' '.join(OPERATORS)} NUMBER, "
            f"as in ttft_s.p99<=0.5, got {text!r}"
        )
    name, statistic, comparison, number = match.groups()
    metric = ALIASES.get(name, name)
    try:
        bound = float(number)
    except ValueError:
        raise ValueError(f"{text!r}: {number!r} is no number") from None
    if bound != bound:
        raise ValueError(f"{text!r}: a bound must be a number, got nan")
    _check(text, metric, statistic or "")
    return Assertion(
        text=text.strip(),
        metric=metric,
        statistic=statistic or "",
        comparison=comparison,
        bound=bound,
    )


def check(assertions: Sequence[Assertion], found: RunScore, *, run: str) -> list[Checked]:
    """Each assertion against a run."""
    return [Checked(assertion=one, run=run, value=one.value(found)) for one in assertions]


def junit_xml(checked: Sequence[Checked], *, problems: Sequence[str] = ()) -> str:
    """The outcome as JUnit's XML; `problems` are why a run could not be judged at all."""
    failed = sum(not one.is_held for one in checked)
    suite = ET.Element(
        "testsuite",
        name="readahead load",
        tests=str(len(checked) + len(problems)),
        failures=str(failed),
        errors=str(len(problems)),
    )
    for one in checked:
        case = ET.SubElement(suite, "testcase", classname=one.run, name=one.assertion.text)
        if not one.is_held:
            ET.SubElement(case, "failure", message=str(one))
        else:
            ET.SubElement(case, "system-out").text = str(one)
    for problem in problems:
        case = ET.SubElement(suite, "testcase", classname="run", name="is valid")
        ET.SubElement(case, "error", message=problem)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write_junit(path: Path, checked: Sequence[Checked], *, problems: Sequence[str] = ()) -> None:
    """Writes the XML.

    Raises:
        OSError: the disk does not take it.
    """
    path.write_text(junit_xml(checked, problems=problems), encoding="utf-8")


def _check(text: str, metric: str, statistic: str) -> None:
    if metric in DISTRIBUTIONS:
        if statistic in STATISTICS or _PERCENTILE.fullmatch(statistic):
            return
        raise ValueError(
            f"{text!r}: {metric} is a distribution, say which of it: "
            f"{', '.join(f'{metric}.{one}' for one in STATISTICS)}, {metric}.p95 …"
        )
    if metric not in (*NUMBERS, *COUNTS):
        known = ", ".join((*NUMBERS, *COUNTS, *DISTRIBUTIONS))
        raise ValueError(f"{text!r}: no metric is called {metric!r}; known are {known}")
    if statistic:
        raise ValueError(f"{text!r}: {metric} is one number and has no {statistic!r}")


def _percentile(found: RunScore, metric: str, percent: float) -> float | None:
    columns = {"user_idle_s": "idle_s", "user_idle_censored_s": "idle_censored_s"}
    values = (
        gaps_s(found.run) if metric == "tbt_s" else getattr(found.each, columns.get(metric, metric))
    )
    ordered = sorted(value for value in values.tolist() if value == value)
    return percentile(ordered, percent / 100) if ordered else None
