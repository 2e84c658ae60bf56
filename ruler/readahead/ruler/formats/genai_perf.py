"""Reads genai-perf's `profile_export.json`, as perf_analyzer writes it: times in nanoseconds.

A run for each experiment. Its responses are frames, and it does not say how many tokens each has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from readahead.core.reading.timeline import Outcome
from readahead.ruler.formats import record
from readahead.ruler.formats.documents import documents
from readahead.ruler.formats.record import FieldError, Item, Json, RequestRecord, RunHeader
from readahead.ruler.problems import FormatError, ProblemKind, Problems

NOTE = "genai-perf does not count the tokens of a response: each counts as one"


def read(path: Path, problems: Problems) -> Iterator[Item]:
    """A run for each experiment of the file."""
    for line, document in documents(path, problems):
        experiments = document.get("experiments")
        if not isinstance(experiments, list):
            raise FormatError("it has no experiments")
        for index, experiment in enumerate(experiments):
            if not isinstance(experiment, dict):
                continue
            yield _header(experiment, index if len(experiments) > 1 else None)
            requests = experiment.get("requests")
            yield from _requests(requests if isinstance(requests, list) else [], problems, line)


def _header(experiment: Json, index: int | None) -> RunHeader:
    load = experiment.get("experiment")
    mode, value = (load.get("mode"), load.get("value")) if isinstance(load, dict) else ("", None)
    is_rate = mode == "request_rate"
    return RunHeader(
        label="" if index is None else f"{mode} {value}",
        rate_req_s=float(value) if is_rate and isinstance(value, int | float) else None,
        notes=(NOTE,),
    )


def _requests(requests: list[object], problems: Problems, line: int) -> Iterator[Item]:
    for i, fields in enumerate(requests):
        try:
            if not isinstance(fields, dict):
                raise FieldError(ProblemKind.BAD_VALUE, "no object")
            yield _request(fields, i, line=line)
        except FieldError as error:
            problems.add(error.kind, f"request {i}: {error}", line=line)


def _request(fields: Json, i: int, *, line: int) -> RequestRecord:
    stamps = record.numbers(fields, "response_timestamps")
    outputs = fields.get("response_outputs")
    texts = outputs if isinstance(outputs, list) else [None] * len(stamps)
    try:
        ended_s = [stamp / 1e9 for stamp in stamps]
    except (TypeError, OverflowError):
        raise FieldError(ProblemKind.BAD_VALUE, "response_timestamps must be numbers") from None
    times_s = [at_s for at_s, output in zip(ended_s, texts, strict=False) if _has_text(output)]
    return RequestRecord(
        line=line,
        request_id=str(i),
        arrival_s=record.number(fields, "timestamp") / 1e9,
        token_times_s=times_s,
        outcome=Outcome.FINISHED if times_s else Outcome.FAILED,
        ended_s=ended_s[-1] if ended_s else None,
        is_estimated=True,
    )


def _has_text(output: object) -> bool:
    """Whether a response carries more than the end of the stream, or the usage."""
    if not isinstance(output, dict):
        return True
    response = str(output.get("response", ""))
    return bool(response.strip()) and "[DONE]" not in response and '"choices":[]' not in response
