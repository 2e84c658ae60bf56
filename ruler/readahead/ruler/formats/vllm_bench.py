"""Reads what `vllm bench serve --save-result --save-detailed` writes.

A JSON object per run, with a list per field and an entry per request in each: start_times on one
clock, ttfts, itls (gaps between frames), latencies, queue_times, input_lens, output_lens, errors.
With --append-result a file holds several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from readahead.core.reading.timeline import Outcome
from readahead.ruler.formats import record
from readahead.ruler.formats.documents import documents
from readahead.ruler.formats.record import FieldError, Item, Json, RequestRecord, RunHeader
from readahead.ruler.problems import FormatError, ProblemKind, Problems

_NEEDED = ("start_times", "ttfts", "itls")
_OPTIONAL = ("latencies", "queue_times", "input_lens", "output_lens", "errors")


def read(path: Path, problems: Problems) -> Iterator[Item]:
    """A run for each object of the file."""
    for index, (line, document) in enumerate(documents(path, problems)):
        if not any(isinstance(document.get(name), list) for name in _NEEDED):
            raise FormatError(
                "it has no times of requests: run vllm bench serve with --save-detailed"
            )
        rate_req_s = _rate_req_s(document)
        label = "" if index == 0 else f"{index + 1}"
        yield RunHeader(label=label, rate_req_s=rate_req_s)
        yield from _requests(document, problems, line=line, is_open_loop=rate_req_s is not None)


def _rate_req_s(document: Json) -> float | None:
    """None for a closed loop, whose rate is "inf"."""
    rate = document.get("request_rate")
    return float(rate) if isinstance(rate, int | float) and math.isfinite(rate) else None


def _requests(
    document: Json, problems: Problems, *, line: int, is_open_loop: bool
) -> Iterator[Item]:
    columns: dict[str, list[object]] = {}
    for name in (*_NEEDED, *_OPTIONAL):
        values = document.get(name)
        columns[name] = values if isinstance(values, list) else []
    requests = max(len(columns[name]) for name in _NEEDED)
    for i in range(requests):
        row = {name: values[i] for name, values in columns.items() if i < len(values)}
        try:
            yield _request(row, i, line=line, is_open_loop=is_open_loop)
        except FieldError as error:
            problems.add(error.kind, f"request {i}: {error}", line=line)


def _request(row: Json, i: int, *, line: int, is_open_loop: bool) -> RequestRecord:
    start_s = record.number(row, "start_times")
    first_s = record.number(row, "ttfts")
    gaps_s = record.numbers(row, "itls")
    error = row.get("errors")
    has_tokens = first_s > 0 or bool(gaps_s)
    try:
        frames = list(accumulate(gaps_s, initial=start_s + first_s)) if has_tokens else []
    except TypeError:
        raise FieldError(ProblemKind.BAD_VALUE, "itls must hold numbers") from None
    times_s, is_estimated = record.spread(frames, record.count(row, "output_lens"))
    latency_s = record.optional_number(row, "latencies")
    # Failed requests keep a latency of 0; then nothing says when they ended.
    ended_s = start_s + latency_s if latency_s else None
    waited_s = record.optional_number(row, "queue_times") or 0.0
    return RequestRecord(
        line=line,
        request_id=str(i),
        # The time that a request waited for --max-concurrency is its user's time too, where an
        # arrival process brought it; in a closed loop it came when there was room for it.
        arrival_s=start_s - waited_s if is_open_loop else start_s,
        token_times_s=times_s,
        prompt_tokens=record.count(row, "input_lens"),
        outcome=_outcome(error, has_tokens=has_tokens),
        ended_s=ended_s,
        is_estimated=is_estimated,
    )


def _outcome(error: object, *, has_tokens: bool) -> Outcome:
    if not error and has_tokens:
        return Outcome.FINISHED
    refusals = ("too many requests", "service unavailable")
    is_refused = isinstance(error, str) and error.strip().lower() in refusals
    return Outcome.REJECTED if is_refused else Outcome.FAILED
