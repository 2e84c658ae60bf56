"""Reads a file into runs, and leaves out what cannot be scored: each case named and counted."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from readahead.core.reading.curves import Slo
from readahead.ruler.formats.detect import READERS, Format, detect
from readahead.ruler.formats.record import RequestRecord, RunHeader
from readahead.ruler.problems import FormatError, ProblemKind, Problems
from readahead.ruler.promises import ZeroLoadTtft
from readahead.ruler.run import OUTCOMES, Floats, Run

STEP_BACK_S_MAX = 1e-6
"""Times may step back by this much, as sums of rounded gaps do; they are straightened."""

REQUEST_S_MAX = 86_400.0
"""A token a day away from its request's arrival is of another clock."""

CLOCKS_APART_S = 365 * 86_400.0
"""Arrivals a year away from the median are of another clock: one that starts with the machine
and one that counts from 1970 are further apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What a file held."""

    format: Format
    runs: tuple[Run, ...]
    problems: Problems


def gather(
    path: Path,
    *,
    form: Format | None = None,
    name: str | None = None,
    zero_load_ttft: ZeroLoadTtft | None = None,
    keeps_untold_paces: bool = True,
) -> Scored:
    """The runs of a file.

    Args:
        path: the file.
        form: its format; None: it is recognised.
        name: what it is called in reports; None: its path.
        zero_load_ttft: of the system; None: as the file says.
        keeps_untold_paces: paces that the system was not told count; else the ruler's does.

    Raises:
        FormatError: nothing in it can be scored.
        OSError: it cannot be read.
    """
    form = form or detect(path)
    problems = Problems(file=name or str(path))
    gathered: list[_Gathering] = []
    for item in READERS[form](path, problems):
        if isinstance(item, RunHeader):
            gathered.append(
                _Gathering(
                    header=item,
                    problems=problems,
                    zero_load_ttft=zero_load_ttft or item.zero_load_ttft,
                    keeps_untold_paces=keeps_untold_paces,
                )
            )
        else:
            gathered[-1].add(item)
    runs = [each.run(form) for each in gathered]
    for run in runs:
        if not run.requests:
            problems.add(
                ProblemKind.EMPTY_RUN,
                f"run {run.label or 1} has no request that can be scored",
                is_left_out=False,
            )
    if not any(run.requests for run in runs):
        details = "".join(f"\n  {problem}" for problem in problems.examples)
        raise FormatError(f"it has no request that can be scored{details}")
    return Scored(format=form, runs=tuple(run for run in runs if run.requests), problems=problems)


@dataclass(slots=True, kw_only=True)
class _Gathering:
    """A run while it is read. Each token takes 8 bytes here, and each request some hundred."""

    header: RunHeader
    problems: Problems
    zero_load_ttft: ZeroLoadTtft | None
    keeps_untold_paces: bool
    request_ids: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    lines: array[int] = field(default_factory=lambda: array("q"))
    arrivals_s: array[float] = field(default_factory=lambda: array("d"))
    times_s: array[float] = field(default_factory=lambda: array("d"))
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    prompt_tokens: array[int] = field(default_factory=lambda: array("q"))
    outcomes: array[int] = field(default_factory=lambda: array("b"))
    ended_s: array[float] = field(default_factory=lambda: array("d"))
    paces_tok_s: array[float] = field(default_factory=lambda: array("d"))
    slos: dict[int, Slo] = field(default_factory=dict)
    made_times_s: dict[int, Floats] = field(default_factory=dict)
    estimated: int = 0
    thinking_tokens: dict[int, int] = field(default_factory=dict)
    readerless: set[int] = field(default_factory=set)
    reader_idle_s: dict[int, float] = field(default_factory=dict)
    unpromised: int = 0
    """Requests with an SLO class that cannot be told in seconds."""

    def add(self, request: RequestRecord) -> None:
        """Takes a request, or notes why not."""
        try:
            times_s, made_s = self._checked(request)
        except _LeftOutError as error:
            message = f"request {request.request_id}: {error}"
            self.problems.add(error.kind, message, line=request.line)
            return
        index = len(self.request_ids)
        self.seen.add(request.request_id)
        self.request_ids.append(request.request_id)
        self.lines.append(request.line)
        self.arrivals_s.append(request.arrival_s)
        self.times_s.extend(times_s)
        self.offsets.append(len(self.times_s))
        self.prompt_tokens.append(request.prompt_tokens)
        self.outcomes.append(OUTCOMES.index(request.outcome))
        self.ended_s.append(self._ended_s(request, times_s))
        pace = request.pace_tok_s
        is_pace_used = request.is_pace_told or self.keeps_untold_paces
        self.paces_tok_s.append(math.nan if pace is None or not is_pace_used else pace)
        self.estimated += request.is_estimated
        self._add_promise(index, request)
        if request.thinking_tokens:
            self.thinking_tokens[index] = request.thinking_tokens
        if not request.has_reader:
            self.readerless.add(index)
        if request.reader_idle_s is not None:
            self.reader_idle_s[index] = request.reader_idle_s
        if made_s is not None:
            self.made_times_s[index] = np.frombuffer(made_s)
        if request.outcome.value == "finished" and not times_s:
            self._note(request, ProblemKind.NO_FIRST_TOKEN, "it finished without a token")

    def run(self, form: Format) -> Run:
        """The run, without requests of another clock."""
        run = Run(
            file=self.problems.file,
            format=form.value,
            label=self.header.label,
            rate_req_s=self.header.rate_req_s,
            notes=(*self.header.notes, *self._own_notes()),
            request_ids=tuple(self.request_ids),
            lines=np.array(self.lines, dtype=np.int64),
            arrivals_s=np.array(self.arrivals_s),
            times_s=np.frombuffer(self.times_s) if self.times_s else np.empty(0),
            offsets=np.array(self.offsets, dtype=np.int64),
            prompt_tokens=np.array(self.prompt_tokens, dtype=np.int64),
            outcomes=np.array(self.outcomes, dtype=np.int8),
            ended_s=np.array(self.ended_s),
            paces_tok_s=np.array(self.paces_tok_s),
            slos=self.slos,
            made_times_s=self.made_times_s,
            estimated=self.estimated,
            thinking_tokens=self.thinking_tokens,
            readerless=frozenset(self.readerless),
            reader_idle_s=self.reader_idle_s,
        )
        if not run.requests:
            return run
        usual_s = float(np.median(run.arrivals_s))
        other = np.abs(run.arrivals_s - usual_s) > CLOCKS_APART_S
        for index in np.flatnonzero(other):
            self.problems.add(
                ProblemKind.MIXED_CLOCKS,
                f"request {run.request_ids[index]}: arrival_s {run.arrivals_s[index]} is of "
                f"another clock than most, which are near {usual_s:.0f}",
                line=int(run.lines[index]),
            )
        return run.where(~other) if other.any() else run

    def _add_promise(self, index: int, request: RequestRecord) -> None:
        if request.slo is not None:
            self.slos[index] = request.slo
        elif request.slo_class is not None and self.zero_load_ttft is not None:
            self.slos[index] = request.slo_class.curve(
                zero_load_ttft_s=self.zero_load_ttft.of(request.prompt_tokens),
                thinking_tokens=request.thinking_tokens,
            )
        elif request.slo_class is not None:
            self.unpromised += 1

    def _own_notes(self) -> list[str]:
        if not self.unpromised:
            return []
        return [
            f"{self.unpromised} requests are of an SLO class, which promises multiples of the"
            " zero-load TTFT; the file does not say that: see --zero-load-ttft"
        ]

    def _checked(self, request: RequestRecord) -> tuple[array[float], array[float] | None]:
        """Its token times, and when the tokens were made."""
        if request.request_id in self.seen:
            raise _LeftOutError(ProblemKind.DUPLICATE_ID, "its id was there before")
        if not math.isfinite(request.arrival_s):
            raise _LeftOutError(ProblemKind.BAD_VALUE, "arrival_s is not finite")
        if request.arrival_s < 0:
            raise _LeftOutError(ProblemKind.NEGATIVE_TIME, f"arrival_s is {request.arrival_s}")
        pace = request.pace_tok_s
        if pace is not None and not 0 < pace < math.inf:
            raise _LeftOutError(ProblemKind.BAD_VALUE, f"pace_tok_s must be > 0, is {pace}")
        times_s = _ascending("token_times_s", request.token_times_s)
        _check_clock(request, times_s)
        made_s = request.made_times_s
        if made_s is None:
            return times_s, None
        if len(made_s) != len(times_s):
            raise _LeftOutError(
                ProblemKind.BAD_VALUE,
                f"made_times_s has {len(made_s)} times for {len(times_s)} tokens",
            )
        return times_s, _ascending("made_times_s", made_s)

    def _ended_s(self, request: RequestRecord, times_s: array[float]) -> float:
        """When it ended; nan where that is not known or cannot be."""
        ended_s = request.ended_s
        if ended_s is None:
            return math.nan
        last_s = times_s[-1] if times_s else request.arrival_s
        if not last_s - STEP_BACK_S_MAX <= ended_s <= last_s + REQUEST_S_MAX:
            message = f"ended_s {ended_s} does not follow its last time {last_s}; not used"
            self._note(request, ProblemKind.BAD_VALUE, message)
            return math.nan
        return ended_s

    def _note(self, request: RequestRecord, kind: ProblemKind, message: str) -> None:
        self.problems.add(
            kind, f"request {request.request_id}: {message}", line=request.line, is_left_out=False
        )


class _LeftOutError(Exception):
    """Why a request cannot be scored."""

    def __init__(self, kind: ProblemKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _ascending(name: str, values: Sequence[float]) -> array[float]:
    """These times, checked; steps back by rounding are straightened."""
    try:
        times = values if isinstance(values, array) else array("d", values)
    except (TypeError, OverflowError) as error:
        raise _LeftOutError(ProblemKind.BAD_VALUE, f"{name}: {error}") from error
    if not times:
        return times
    view = np.frombuffer(times)
    if not np.isfinite(view).all():
        raise _LeftOutError(ProblemKind.BAD_VALUE, f"{name} holds a time that is not finite")
    if view.min() < 0:
        raise _LeftOutError(ProblemKind.NEGATIVE_TIME, f"{name} holds {view.min()}")
    steps = np.diff(view)
    if not len(steps) or steps.min() >= 0:
        return times
    if steps.min() < -STEP_BACK_S_MAX:
        place = int(np.argmin(steps))
        raise _LeftOutError(
            ProblemKind.UNORDERED_TIMES,
            f"{name}[{place + 1}] is {view[place + 1]}, before {view[place]}",
        )
    return array("d", np.maximum.accumulate(view).tobytes())


def _check_clock(request: RequestRecord, times_s: array[float]) -> None:
    if not times_s:
        return
    before_s, after_s = request.arrival_s - times_s[0], times_s[-1] - request.arrival_s
    if max(before_s, after_s) > REQUEST_S_MAX:
        raise _LeftOutError(
            ProblemKind.MIXED_CLOCKS,
            f"arrival_s {request.arrival_s} and token times up to {times_s[-1]} "
            "are not of one clock",
        )
    if before_s > STEP_BACK_S_MAX:
        raise _LeftOutError(
            ProblemKind.NEGATIVE_TIME, f"its first token is {before_s} s before its arrival"
        )
