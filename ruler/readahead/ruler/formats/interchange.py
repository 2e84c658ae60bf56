"""Reads the interchange format, and the records of `readahead load`, which are of that format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from readahead.core.reading.curves import Slo
from readahead.ruler.formats import record
from readahead.ruler.formats.documents import json_lines
from readahead.ruler.formats.record import FieldError, Item, Json, RequestRecord, RunHeader
from readahead.ruler.problems import ProblemKind, Problems
from readahead.ruler.promises import zero_load_ttft_of


def read(path: Path, problems: Problems) -> Iterator[Item]:
    """The one run of the file."""
    description = _description(path)
    yield RunHeader(
        rate_req_s=_rate_req_s(description), zero_load_ttft=zero_load_ttft_of(description)
    )
    for line, fields in json_lines(path, problems):
        try:
            yield _request(fields, line=line)
        except FieldError as error:
            problems.add(error.kind, str(error), line=line)


def _request(fields: Json, *, line: int) -> RequestRecord:
    return RequestRecord(
        line=line,
        request_id=record.text(fields, "request_id"),
        arrival_s=record.number(fields, "arrival_s"),
        token_times_s=record.numbers(fields, "token_times_s"),
        prompt_tokens=record.count(fields, "prompt_tokens"),
        outcome=record.outcome(fields),
        ended_s=record.optional_number(fields, "ended_s"),
        pace_tok_s=record.optional_number(fields, "pace_tok_s"),
        made_times_s=record.optional_numbers(fields, "made_times_s"),
        slo=_slo(fields),
        slo_class=record.slo_class(fields),
        is_estimated=bool(fields.get("token_counts_estimated")),
        thinking_tokens=record.count(fields, "thinking_tokens"),
        has_reader=record.flag(fields, "has_reader", absent=True),
        is_pace_told=record.flag(fields, "is_pace_told", absent=True),
        reader_idle_s=record.optional_number(fields, "reader_idle_s"),
    )


def _slo(fields: Json) -> Slo | None:
    if fields.get("slo") is None:
        return None
    bounds = record.mapping(fields, "slo")
    try:
        return record.slo_of({name: record.number(bounds, name) for name in bounds})
    except ValueError as error:
        raise FieldError(ProblemKind.BAD_VALUE, f"slo: {error}") from error


def _description(path: Path) -> Mapping[str, object]:
    """What `readahead load` wrote beside its records; empty where there is nothing to use."""
    try:
        description = json.loads(path.with_name(path.name + ".meta.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return description if isinstance(description, Mapping) else {}


def _rate_req_s(description: Mapping[str, object]) -> float | None:
    settings = description.get("settings")
    rate = settings.get("rate_req_s") if isinstance(settings, Mapping) else None
    return float(rate) if isinstance(rate, int | float) else None
