"""JSON files, whole or cut off: line by line, or as one document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from readahead.ruler.formats.record import Json
from readahead.ruler.problems import FormatError, ProblemKind, Problems

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[\[\]{},]')
_CLOSING = {"[": "]", "{": "}"}


def json_lines(path: Path, problems: Problems) -> Iterator[tuple[int, Json]]:
    """Each line's number and object. What is none is noted."""
    with path.open("rb") as file:
        for line_number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                kind, message = ProblemKind.NOT_READABLE, f"no JSON object: {error}"
                if not line.endswith(b"\n"):
                    kind, message = ProblemKind.TRUNCATED, "the file ends within this record"
                problems.add(kind, message, line=line_number)
                continue
            if not isinstance(fields, dict):
                problems.add(ProblemKind.NOT_READABLE, "no JSON object", line=line_number)
                continue
            yield line_number, fields


def documents(path: Path, problems: Problems) -> Iterator[tuple[int, Json]]:
    """Each JSON object of a file that holds one or several, and the line where it starts.

    An object that the file cuts off is given as far as it goes, and noted.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    decoder = json.JSONDecoder()
    start = _skip_space(text, 0)
    while start < len(text):
        line = text.count("\n", 0, start) + 1
        try:
            document, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            document, end = _rescued(text[start:], error), len(text)
            message = f"the file is cut off or damaged, and read as far as it goes: {error}"
            problems.add(ProblemKind.TRUNCATED, message, line=line, is_left_out=False)
        if not isinstance(document, dict):
            raise FormatError("it holds no JSON object")
        yield line, document
        start = _skip_space(text, end)


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _rescued(text: str, error: Exception) -> object:
    """The document up to its last whole member, with what is open closed."""
    stack: list[str] = []
    cut, closing = 0, ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in "[{":
            stack.append(_CLOSING[token])
        elif token in "]}":
            if not stack or stack.pop() != token:
                break
            cut, closing = match.end(), "".join(reversed(stack))
        elif token == ",":
            cut, closing = match.start(), "".join(reversed(stack))
    try:
        return json.loads(text[:cut] + closing)
    except (ValueError, RecursionError):
        raise FormatError(f"it is no JSON: {error}") from error
