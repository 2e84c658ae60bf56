"""What came of a simulated run, as the ruler takes it. Nothing of it was measured."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import IO

import numpy as np

from readahead.core.reading.curves import Slo
from readahead.core.reading.timeline import Timeline
from readahead.ruler.run import OUTCOMES, Run
from readahead.sim.asked import EndedRequest

SIMULATED = "simulated"
NOTE = "simulated: computed by a model, nothing was measured"


class Gathered:
    """Ended requests in columns: 8 bytes a token, and some hundred a request."""

    def __init__(self) -> None:
        self.request_ids: list[str] = []
        self.slos: dict[int, Slo] = {}
        self._thinking_tokens: dict[int, int] = {}
        self._readerless: set[int] = set()
        self._arrivals_s = array("d")
        self._ended_s = array("d")
        self._times_s = array("d")
        self._offsets = array("q", (0,))
        self._prompt_tokens = array("q")
        self._outcomes = array("b")
        self._paces_tok_s = array("d")

    def __len__(self) -> int:
        return len(self.request_ids)

    def add(self, request: EndedRequest, slo: Slo | None) -> None:
        """Takes one more."""
        index = len(self.request_ids)
        if slo is not None:
            self.slos[index] = slo
        if request.thinking_tokens:
            self._thinking_tokens[index] = request.thinking_tokens
        if not request.has_reader:
            self._readerless.add(index)
        self.request_ids.append(request.request_id)
        self._arrivals_s.append(request.arrival_s)
        self._ended_s.append(request.ended_s)
        self._times_s.extend(request.token_times_s)
        self._offsets.append(len(self._times_s))
        self._prompt_tokens.append(request.prompt_tokens)
        self._outcomes.append(OUTCOMES.index(request.outcome))
        pace_tok_s = request.pace_tok_s
        self._paces_tok_s.append(math.nan if pace_tok_s is None else pace_tok_s)

    def run(self, *, label: str = SIMULATED, rate_req_s: float | None = None) -> Run:
        """All of them as a run."""
        count = len(self.request_ids)
        return Run(
            file=SIMULATED,
            format=SIMULATED,
            label=label,
            rate_req_s=rate_req_s,
            notes=(NOTE,),
            request_ids=tuple(self.request_ids),
            lines=np.arange(1, count + 1, dtype=np.int64),
            arrivals_s=np.array(self._arrivals_s),
            times_s=np.array(self._times_s),
            offsets=np.array(self._offsets, dtype=np.int64),
            prompt_tokens=np.array(self._prompt_tokens, dtype=np.int64),
            outcomes=np.array(self._outcomes, dtype=np.int8),
            ended_s=np.array(self._ended_s),
            paces_tok_s=np.array(self._paces_tok_s),
            slos=dict(self.slos),
            made_times_s={},
            estimated=0,
            thinking_tokens=dict(self._thinking_tokens),
            readerless=frozenset(self._readerless),
        )


def record_line(request: EndedRequest) -> str:
    """One line of docs/reference/load-jsonl.md, and what only a simulator knows beside it."""
    fields: dict[str, object] = {
        "request_id": request.request_id,
        "arrival_s": round(request.arrival_s, 6),
        "sent_s": round(request.arrival_s, 6),
        "ended_s": round(request.ended_s, 6),
        "token_times_s": [round(at_s, 6) for at_s in request.token_times_s],
        "prompt_tokens": request.prompt_tokens,
        "output_tokens": len(request.token_times_s),
        "outcome": request.outcome.value,
    }
    if request.pace_tok_s is not None:
        fields["pace_tok_s"] = request.pace_tok_s
    if request.error is not None:
        fields["error"] = request.error
    if request.thinking_tokens:
        fields["thinking_tokens"] = request.thinking_tokens
    if not request.has_reader:
        fields["has_reader"] = False
    fields |= {
        "simulated": True,
        "session_id": request.session_id,
        "turn": request.turn,
        "scenario": request.scenario,
        "tenant": request.tenant,
        "attempts": request.attempts,
    }
    return json.dumps(fields, separators=(",", ":"))


def timeline(request: EndedRequest, slo: Slo | None = None) -> Timeline:
    """One request as core's metrics take it."""
    return Timeline(
        request_id=request.request_id,
        arrival_s=request.arrival_s,
        token_times_s=request.token_times_s,
        prompt_tokens=request.prompt_tokens,
        outcome=request.outcome,
        ended_s=request.ended_s,
        pace_tok_s=request.pace_tok_s,
        slo=slo,
        thinking_tokens=request.thinking_tokens,
        has_reader=request.has_reader,
    )


class RecordWriter:
    """Writes each record as its request ends."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def add(self, request: EndedRequest) -> None:
        """One more line.

        Raises:
            OSError: the disk does not take it.
        """
        self._file.write(record_line(request) + "\n")


def all_of(takers: Sequence[Callable[[EndedRequest], None]]) -> Callable[[EndedRequest], None]:
    """One taker that hands each request to all of these."""

    def take(request: EndedRequest) -> None:
        for taker in takers:
            taker(request)

    return take


def timelines(requests: Iterable[EndedRequest]) -> list[Timeline]:
    """Many requests as core's metrics take them."""
    return [timeline(request) for request in requests]
