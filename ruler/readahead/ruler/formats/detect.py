"""Which format a file is of, by what its beginning says."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from readahead.ruler.formats import (
    aiperf,
    genai_perf,
    guidellm,
    interchange,
    plain_csv,
    vllm_bench,
)
from readahead.ruler.formats.record import Reader
from readahead.ruler.problems import FormatError

HEAD_BYTES = 1 << 16
"""How much of a file is looked at."""


class Format(StrEnum):
    """The formats that are read."""

    INTERCHANGE = "interchange"
    VLLM_BENCH = "vllm-bench"
    GUIDELLM = "guidellm"
    AIPERF = "aiperf"
    GENAI_PERF = "genai-perf"
    CSV = "csv"


READERS: dict[Format, Reader] = {
    Format.INTERCHANGE: interchange.read,
    Format.VLLM_BENCH: vllm_bench.read,
    Format.GUIDELLM: guidellm.read,
    Format.AIPERF: aiperf.read,
    Format.GENAI_PERF: genai_perf.read,
    Format.CSV: plain_csv.read,
}

_MARKS: tuple[tuple[Format, tuple[str, ...]], ...] = (
    # The most telling first: names of one format may occur in the texts of another.
    (Format.GUIDELLM, ('"guidellm_version"',)),
    (Format.VLLM_BENCH, ('"endpoint_type"', '"num_prompts"')),
    (Format.VLLM_BENCH, ('"ttfts"', '"itls"')),
    (Format.AIPERF, ('"metadata"', '"request_start_ns"')),
    (Format.GENAI_PERF, ('"experiments"', '"service_kind"')),
    (Format.GENAI_PERF, ('"experiments"', '"response_timestamps"')),
    (Format.GUIDELLM, ('"benchmarks"',)),
    (Format.INTERCHANGE, ('"request_id"',)),
    (Format.INTERCHANGE, ('"token_times_s"',)),
)

_SUMMARIES = (
    (('"schema_version"', '"aiperf_version"'), "a summary of aiperf: give profile_export.jsonl"),
    (('"request_throughput"', '"time_to_first_token"'), "a summary: give profile_export.jsonl"),
)


def detect(path: Path) -> Format:
    """The file's format.

    Raises:
        FormatError: none is recognised.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES).decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if not head:
        raise FormatError("it is empty")
    if head[0] not in "{[":
        columns = head.splitlines()[0].split(",")
        if len(columns) > 1:
            return Format.CSV
        raise FormatError("its format is not recognised: no JSON, and no header of columns")
    for form, marks in _MARKS:
        if all(mark in head for mark in marks):
            return form
    for marks, what in _SUMMARIES:
        if all(mark in head for mark in marks):
            raise FormatError(f"it is {what}")
    raise FormatError("its format is not recognised: see docs/reference/interchange.md")
