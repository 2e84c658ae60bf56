"""Reads CSV with a header: a row per token, or a row per request.

A row per token has the column token_time_s, and is blank there for a request without any; a row
per request has token_times_s, its times separated by spaces or semicolons.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from readahead.ruler.formats import record
from readahead.ruler.formats.record import FieldError, Item, RequestRecord, RunHeader
from readahead.ruler.problems import FormatError, ProblemKind, Problems

FIELD_CHARACTERS_MAX = 1 << 24
"""A request's times are one field: room for a million of them."""

_NEEDED = ("request_id", "arrival_s")
_NUMBERS = ("arrival_s", "ended_s", "pace_tok_s", "prompt_tokens", "token_time_s")


@dataclass(slots=True)
class _Request:
    """A request whose rows are being gathered."""

    line: int
    fields: dict[str, object]
    times_s: array[float] = field(default_factory=lambda: array("d"))


def read(path: Path, problems: Problems) -> Iterator[Item]:
    """The one run of the file."""
    csv.field_size_limit(FIELD_CHARACTERS_MAX)
    yield RunHeader()
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        names = [name.strip() for name in rows.fieldnames or ()]
        rows.fieldnames = names
        missing = [name for name in _NEEDED if name not in names]
        if "token_time_s" not in names and "token_times_s" not in names:
            missing.append("token_time_s or token_times_s")
        if missing:
            raise FormatError(f"line 1: column {', '.join(missing)} is missing")
        reader = _row_per_request if "token_times_s" in names else _row_per_token
        try:
            yield from reader(rows, problems)
        except csv.Error as error:
            problems.add(ProblemKind.NOT_READABLE, str(error), line=rows.line_num)


def _row_per_request(rows: csv.DictReader[str], problems: Problems) -> Iterator[Item]:
    for row in rows:
        try:
            fields = _fields(row)
            times = (row["token_times_s"] or "").replace(";", " ").split()
            times_s = [_number("token_times_s", text) for text in times]
            yield _record(_Request(line=rows.line_num, fields=fields), times_s)
        except FieldError as error:
            problems.add(error.kind, str(error), line=rows.line_num)


def _row_per_token(rows: csv.DictReader[str], problems: Problems) -> Iterator[Item]:
    """Rows of several requests may be mixed."""
    requests: dict[str, _Request] = {}
    broken: set[str] = set()
    for row in rows:
        try:
            fields = _fields(row)
            request_id = record.text(fields, "request_id")
            request = requests.get(request_id)
            if request is None:
                request = requests[request_id] = _Request(line=rows.line_num, fields=fields)
            elif request.fields["arrival_s"] != fields["arrival_s"]:
                raise FieldError(ProblemKind.BAD_VALUE, "arrival_s differs from an earlier row's")
            at_s = record.optional_number(fields, "token_time_s")
            if at_s is not None:
                request.times_s.append(at_s)
        except FieldError as error:
            broken.add(row.get("request_id") or "")
            problems.add(error.kind, str(error), line=rows.line_num, is_left_out=False)
    problems.left_out += len(broken)
    for request_id, request in requests.items():
        if request_id in broken:
            continue
        try:
            yield _record(request, request.times_s)
        except FieldError as error:
            problems.add(error.kind, str(error), line=request.line)


def _fields(row: Mapping[str, str | None]) -> dict[str, object]:
    if None in row.values():
        raise FieldError(ProblemKind.TRUNCATED, "the row has fewer columns than the header")
    fields: dict[str, object] = {name: (row[name] or "").strip() for name in row if name}
    for name in _NUMBERS:
        text = fields.get(name)
        if text is not None:
            fields[name] = _number(name, str(text)) if text else None
    return fields


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FieldError(
            ProblemKind.BAD_VALUE, f"{name} must be a number, is {text!r:.60}"
        ) from None


def _record(request: _Request, times_s: list[float] | array[float]) -> RequestRecord:
    fields = request.fields
    return RequestRecord(
        line=request.line,
        request_id=record.text(fields, "request_id"),
        arrival_s=record.number(fields, "arrival_s"),
        token_times_s=times_s,
        prompt_tokens=record.count(fields, "prompt_tokens"),
        outcome=record.outcome(fields),
        ended_s=record.optional_number(fields, "ended_s"),
        pace_tok_s=record.optional_number(fields, "pace_tok_s"),
    )
