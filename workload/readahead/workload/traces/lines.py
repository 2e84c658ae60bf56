"""Lines of a trace's file, and what is said of a bad one."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


class TraceError(ValueError):
    """A trace cannot be used; says the file, the line, and what was expected."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        where = f"{path}, line {line}" if line is not None else str(path)
        super().__init__(f"{where}: {problem}")
        self.path = path
        self.line = line


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The file as text, unpacked if it ends in `.gz`.

    Raises:
        TraceError: it cannot be read, is not UTF-8, or its packing is broken.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as unpacked:
                yield unpacked
        else:
            with path.open(encoding="utf-8-sig", newline="") as plain:
                yield plain
    except UnicodeDecodeError as error:
        raise TraceError(path, None, f"must be UTF-8 text: {error.reason}") from error
    except (OSError, EOFError) as error:  # gzip says EOFError where a file was cut off
        raise TraceError(path, None, f"cannot be read: {error}") from error
