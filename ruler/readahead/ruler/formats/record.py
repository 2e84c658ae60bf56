"""What a reader makes of a file: a header per run, and a record per request, not yet checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from readahead.core.reading.curves import EndToEnd, Slo, TtftTbt, TtftTpot
from readahead.core.reading.timeline import Outcome
from readahead.ruler.problems import ProblemKind, Problems
from readahead.ruler.promises import ZeroLoadTtft
from readahead.workload.slo import SloClass

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """Starts a run: a file may hold several."""

    label: str = ""
    """Tells the runs of one file apart."""
    rate_req_s: float | None = None
    """Offered load, where the file says it."""
    notes: tuple[str, ...] = ()
    """What the format cannot say, for the reader of the score."""
    zero_load_ttft: ZeroLoadTtft | None = None
    """What the promises of SLO classes are multiples of, where the file says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request as the file has it."""

    line: int
    request_id: str
    arrival_s: float
    token_times_s: Sequence[float]
    prompt_tokens: int = 0
    outcome: Outcome = Outcome.FINISHED
    ended_s: float | None = None
    pace_tok_s: float | None = None
    made_times_s: Sequence[float] | None = None
    slo: Slo | None = None
    slo_class: SloClass | None = None
    """What its scenario promises; `slo` goes before it."""
    is_estimated: bool = False
    """The log has fewer times than tokens: they were spread."""
    thinking_tokens: int = 0
    has_reader: bool = True
    is_pace_told: bool = True
    """The system was told the pace."""
    reader_idle_s: float | None = None
    """How long the reader waited whom the log's writer played."""


Item = RunHeader | RequestRecord
Reader = Callable[[Path, Problems], Iterator[Item]]


class FieldError(Exception):
    """A field that is missing or is not what it should be."""

    def __init__(self, kind: ProblemKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def number(fields: Json, name: str) -> float:
    """A number that must be there."""
    value = optional_number(fields, name)
    if value is None:
        raise FieldError(ProblemKind.MISSING_FIELD, f"{name} is missing")
    return value


def optional_number(fields: Json, name: str) -> float | None:
    """A number, or None where there is none."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldError(ProblemKind.BAD_VALUE, f"{name} must be a number, is {value!r:.60}")
    try:
        return float(value)
    except OverflowError:
        raise FieldError(ProblemKind.BAD_VALUE, f"{name} is too large") from None


def count(fields: Json, name: str) -> int:
    """A number of tokens; 0 where there is none."""
    value = optional_number(fields, name)
    if value is None:
        return 0
    if not 0 <= value < 1e12 or value != int(value):
        raise FieldError(ProblemKind.BAD_VALUE, f"{name} must be a count, is {value!r}")
    return int(value)


def numbers(fields: Json, name: str) -> list[float]:
    """A list of numbers that must be there. Its members are looked at when they are gathered."""
    value = fields.get(name)
    if value is None:
        raise FieldError(ProblemKind.MISSING_FIELD, f"{name} is missing")
    if not isinstance(value, list):
        raise FieldError(ProblemKind.BAD_VALUE, f"{name} must be a list, is {value!r:.60}")
    return value


def optional_numbers(fields: Json, name: str) -> list[float] | None:
    """A list of numbers, or None where there is none."""
    return None if fields.get(name) is None else numbers(fields, name)


def flag(fields: Json, name: str, *, absent: bool) -> bool:
    """True or false; `absent` where there is none."""
    value = fields.get(name)
    if value is None:
        return absent
    if not isinstance(value, bool):
        raise FieldError(ProblemKind.BAD_VALUE, f"{name} must be true or false, is {value!r:.60}")
    return value


def mapping(fields: Json, name: str) -> Json:
    """An object that must be there."""
    value = fields.get(name)
    if value is None:
        raise FieldError(ProblemKind.MISSING_FIELD, f"{name} is missing")
    if not isinstance(value, dict):
        raise FieldError(ProblemKind.BAD_VALUE, f"{name} must be an object, is {value!r:.60}")
    return value


def text(fields: Json, name: str) -> str:
    """A string or an integer, as a string, that must be there."""
    value = fields.get(name)
    if value is None or value == "":
        raise FieldError(ProblemKind.MISSING_FIELD, f"{name} is missing")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise FieldError(ProblemKind.BAD_VALUE, f"{name} must be a string, is {value!r:.60}")
    return str(value)


def outcome(fields: Json, name: str = "outcome") -> Outcome:
    """How it ended; what is not said to have ended otherwise has finished."""
    value = fields.get(name)
    if value is None or value == "":
        return Outcome.FINISHED
    try:
        return Outcome(str(value))
    except ValueError:
        known = ", ".join(member.value for member in Outcome)
        raise FieldError(
            ProblemKind.BAD_VALUE, f"{name} must be one of {known}, is {value!r:.60}"
        ) from None


def slo_of(bounds: Mapping[str, float]) -> Slo:
    """The objective that these bounds, in seconds, make together.

    Raises:
        ValueError: no objective has these bounds.
    """
    match dict(bounds):
        case {"ttft_s": ttft_s, "tbt_s": tbt_s, **rest} if not rest:
            return TtftTbt(ttft_s=ttft_s, tbt_s=tbt_s)
        case {"ttft_s": ttft_s, "tpot_s": tpot_s, **rest} if not rest:
            return TtftTpot(ttft_s=ttft_s, tpot_s=tpot_s)
        case {"e2e_s": e2e_s, **rest} if not rest:
            return EndToEnd(e2e_s=e2e_s)
    raise ValueError("an objective is ttft_s with tbt_s, ttft_s with tpot_s, or e2e_s")


def slo_class(fields: Json) -> SloClass | None:
    """The SLO class of a request; None where it has none."""
    if fields.get("slo_class") is None:
        return None
    named = mapping(fields, "slo_class")
    bounds = {name: number(named, name) for name in ("ttft_slowdown", "tpot_s")}
    think_s = optional_number(named, "think_tpot_s")
    for name, bound in {**bounds, "think_tpot_s": 1.0 if think_s is None else think_s}.items():
        if not 0 < bound < math.inf:
            raise FieldError(ProblemKind.BAD_VALUE, f"slo_class: {name} must be > 0, is {bound}")
    return SloClass(name=str(named.get("name", "")), think_tpot_s=think_s, **bounds)


def spread(frame_times_s: Sequence[float], tokens: int) -> tuple[Sequence[float], bool]:
    """A time for each token where the log has one for each frame; True: estimated.

    Frames beyond the tokens are the empty ones at the end; tokens beyond the frames are spread
    evenly over them, and those of one frame have its time.
    """
    frames = len(frame_times_s)
    if not tokens or not frames or frames == tokens:
        return frame_times_s, False
    if frames > tokens:
        return frame_times_s[:tokens], True
    return [frame_times_s[i * frames // tokens] for i in range(tokens)], True
