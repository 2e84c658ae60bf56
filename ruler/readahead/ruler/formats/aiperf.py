"""Reads aiperf's records, `profile_export.jsonl`: a JSON object per request, a line each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from readahead.core.reading.timeline import Outcome
from readahead.ruler.formats import record
from readahead.ruler.formats.documents import json_lines
from readahead.ruler.formats.record import FieldError, Item, Json, RequestRecord, RunHeader
from readahead.ruler.problems import ProblemKind, Problems

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}
_REFUSED = frozenset({429, 503})


def read(path: Path, problems: Problems) -> Iterator[Item]:
    """The one run of the file, without its warm-up."""
    yield RunHeader()
    for line, fields in json_lines(path, problems):
        try:
            metadata = record.mapping(fields, "metadata")
            if metadata.get("benchmark_phase") == "warmup":
                continue
            yield _request(fields, metadata, line=line)
        except FieldError as error:
            problems.add(error.kind, str(error), line=line)


def _request(fields: Json, metadata: Json, *, line: int) -> RequestRecord:
    metrics = record.mapping(fields, "metrics")
    # Seconds since 1970 as floats are good to a quarter of a microsecond.
    start_s = record.number(metadata, "request_start_ns") / 1e9
    issued_ns = record.optional_number(metadata, "credit_issued_ns")
    issued_s = start_s if issued_ns is None else issued_ns / 1e9
    # What the server counted; aiperf's own count is of the text, by a tokenizer of its choice.
    tokens = _count(metrics, "usage_completion_tokens", "output_sequence_length")
    first_s = _seconds(metrics, "time_to_first_token")
    if tokens and first_s is None:
        raise FieldError(
            ProblemKind.NO_TOKEN_TIMES, "tokens came, and no time of the first: use --streaming"
        )
    frames = [] if first_s is None else _frames_s(metrics, start_s + first_s)
    times_s, is_estimated = record.spread(frames, tokens)
    return RequestRecord(
        line=line,
        request_id=_request_id(metadata),
        arrival_s=min(issued_s, start_s),
        token_times_s=times_s,
        prompt_tokens=_count(metrics, "usage_prompt_tokens", "input_sequence_length"),
        outcome=_outcome(fields, metadata),
        ended_s=record.number(metadata, "request_end_ns") / 1e9,
        is_estimated=is_estimated,
    )


def _request_id(metadata: Json) -> str:
    if metadata.get("x_request_id"):
        return record.text(metadata, "x_request_id")
    return f"{record.text(metadata, 'session_num')}.{metadata.get('turn_index') or 0}"


def _frames_s(metrics: Json, first_s: float) -> list[float]:
    entry = metrics.get("inter_chunk_latency")
    if entry is None:
        return [first_s]
    gaps = record.numbers(record.mapping(metrics, "inter_chunk_latency"), "value")
    scale = _scale(record.mapping(metrics, "inter_chunk_latency"))
    try:
        return list(accumulate((gap * scale for gap in gaps), initial=first_s))
    except TypeError:
        raise FieldError(ProblemKind.BAD_VALUE, "inter_chunk_latency must hold numbers") from None


def _count(metrics: Json, *names: str) -> int:
    """The first of these that is there."""
    for name in names:
        value = _value(metrics, name)
        if value:
            return record.count(record.mapping(metrics, name), "value")
    return 0


def _value(metrics: Json, name: str) -> float | None:
    if metrics.get(name) is None:
        return None
    return record.number(record.mapping(metrics, name), "value")


def _seconds(metrics: Json, name: str) -> float | None:
    value = _value(metrics, name)
    return None if value is None else value * _scale(record.mapping(metrics, name))


def _scale(metric: Json) -> float:
    unit = str(metric.get("unit", "ms"))
    if unit not in _UNITS_S:
        raise FieldError(ProblemKind.BAD_VALUE, f"unit of time {unit!r:.20} is not known")
    return _UNITS_S[unit]


def _outcome(fields: Json, metadata: Json) -> Outcome:
    if metadata.get("was_cancelled"):
        return Outcome.CANCELLED
    error = fields.get("error")
    if not error:
        return Outcome.FINISHED
    code = error.get("code") if isinstance(error, dict) else None
    return Outcome.REJECTED if code in _REFUSED else Outcome.FAILED
