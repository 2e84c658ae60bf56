"""Reads what guidellm writes as JSON (`--output kind=json`), a run for each of its benchmarks.

It keeps of each request the first and the last frame's time and how many there were: stalls in
between are not in the file. Spread evenly, its tokens give the least idle time that they can have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from readahead.core.reading.timeline import Outcome
from readahead.ruler.formats import record
from readahead.ruler.formats.documents import documents
from readahead.ruler.formats.record import FieldError, Item, Json, RequestRecord, RunHeader
from readahead.ruler.problems import FormatError, ProblemKind, Problems

NOTE = (
    "guidellm keeps the first and the last token's time only: stalls between them are unknown, "
    "so idle is a lower bound, smooth goodput an upper one, and TBT a mean"
)
TARGET_S_MAX = 3600.0
"""A request sent this long after it was meant to be has a target that is not to be believed."""

_OUTCOMES = {
    "successful": Outcome.FINISHED,
    "incomplete": Outcome.CANCELLED,
    "errored": Outcome.FAILED,
}
_OPEN_LOOPS = frozenset({"constant", "poisson", "async", "trace", "replay"})


def read(path: Path, problems: Problems) -> Iterator[Item]:
    """A run for each benchmark in the report."""
    for line, document in documents(path, problems):
        benchmarks = document.get("benchmarks")
        if not isinstance(benchmarks, list):
            raise FormatError("it has no benchmarks")
        for index, benchmark in enumerate(benchmarks):
            if not isinstance(benchmark, dict):
                continue
            strategy = _strategy(benchmark)
            name = str(strategy.get("type_", ""))
            rate = strategy.get("rate")
            yield RunHeader(
                label=f"{name or 'run'} {index + 1}" if len(benchmarks) > 1 else "",
                rate_req_s=float(rate) if isinstance(rate, int | float) else None,
                notes=(NOTE,),
            )
            is_open_loop = name in _OPEN_LOOPS
            yield from _requests(benchmark, problems, line=line, is_open_loop=is_open_loop)


def _strategy(benchmark: Json) -> Json:
    config = benchmark.get("config")
    strategy = config.get("strategy") if isinstance(config, dict) else None
    return strategy if isinstance(strategy, dict) else {}


def _requests(
    benchmark: Json, problems: Problems, *, line: int, is_open_loop: bool
) -> Iterator[Item]:
    groups = benchmark.get("requests")
    for group, outcome in _OUTCOMES.items():
        requests = groups.get(group) if isinstance(groups, dict) else None
        for i, fields in enumerate(requests or []):
            where = f"requests.{group}[{i}]"
            try:
                if not isinstance(fields, dict):
                    raise FieldError(ProblemKind.BAD_VALUE, "no object")
                yield _request(fields, outcome, line=line, is_open_loop=is_open_loop)
            except FieldError as error:
                problems.add(error.kind, f"{where}: {error}", line=line)


def _request(fields: Json, outcome: Outcome, *, line: int, is_open_loop: bool) -> RequestRecord:
    timings = record.mapping(record.mapping(fields, "info"), "timings")
    output = fields.get("output_metrics")
    tokens = record.count(output, "text_tokens") if isinstance(output, dict) else 0
    prompt = fields.get("input_metrics")
    ended_s = record.optional_number(timings, "request_end")
    if ended_s is None:
        ended_s = record.optional_number(timings, "resolve_end")
    return RequestRecord(
        line=line,
        request_id=record.text(fields, "request_id"),
        arrival_s=_arrival_s(timings, is_open_loop=is_open_loop),
        token_times_s=_token_times_s(timings, tokens),
        prompt_tokens=record.count(prompt, "text_tokens") if isinstance(prompt, dict) else 0,
        outcome=outcome,
        ended_s=ended_s,
        is_estimated=tokens > 2,
    )


def _arrival_s(timings: Json, *, is_open_loop: bool) -> float:
    """When an arrival process brought it; else when it was sent."""
    started_s = record.optional_number(timings, "request_start")
    if started_s is None:
        started_s = record.number(timings, "resolve_start")
    targeted_s = record.optional_number(timings, "targeted_start")
    if not is_open_loop or targeted_s is None:
        return started_s
    # From its second benchmark on, 0.8 writes targets that are of no clock.
    return targeted_s if abs(started_s - targeted_s) < TARGET_S_MAX else started_s


def _token_times_s(timings: Json, tokens: int) -> list[float]:
    first_s = record.optional_number(timings, "first_token_iteration")
    last_s = record.optional_number(timings, "last_token_iteration")
    tokens = tokens or record.count(timings, "token_iterations")
    if first_s is None or last_s is None or not tokens:
        if tokens and first_s is None:
            raise FieldError(ProblemKind.NO_TOKEN_TIMES, "tokens came, and no time of the first")
        return []
    if tokens == 1:
        return [first_s]
    gap_s = (last_s - first_s) / (tokens - 1)
    return [*(first_s + i * gap_s for i in range(tokens - 1)), last_s]
