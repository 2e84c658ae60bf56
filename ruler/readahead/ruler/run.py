"""One run in columns: a row per request, and all token times in one array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from readahead.core.reading.curves import Slo
from readahead.core.reading.timeline import Outcome, Timeline, Window

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

OUTCOMES = tuple(Outcome)
"""A request's outcome is kept as its place here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The requests of one run. Where a request does not say, floats are nan."""

    file: str
    format: str
    label: str
    rate_req_s: float | None
    """Offered load, as the file says it."""
    notes: tuple[str, ...]
    request_ids: tuple[str, ...]
    lines: Integers
    arrivals_s: Floats
    times_s: Floats
    """Of all tokens, request by request."""
    offsets: Integers
    """Request r has times_s[offsets[r]:offsets[r + 1]]."""
    prompt_tokens: Integers
    outcomes: NDArray[np.int8]
    ended_s: Floats
    paces_tok_s: Floats
    slos: Mapping[int, Slo]
    made_times_s: Mapping[int, Floats]
    estimated: int
    """Requests whose tokens had to be spread over fewer times."""
    thinking_tokens: Mapping[int, int] = field(default_factory=dict)
    """Of requests whose first so many tokens are thinking."""
    readerless: frozenset[int] = frozenset()
    """Requests that nobody reads, as a tool's rounds."""
    reader_idle_s: Mapping[int, float] = field(default_factory=dict)
    """How long a reader waited whom the log's writer played while the answer came."""

    @property
    def requests(self) -> int:
        """How many there are."""
        return len(self.request_ids)

    @property
    def name(self) -> str:
        """What the run is called in reports."""
        return f"{self.file} [{self.label}]" if self.label else self.file

    @property
    def tokens(self) -> Integers:
        """How many tokens each request got."""
        return np.diff(self.offsets)

    @property
    def has_reader(self) -> Flags:
        """Which requests somebody reads."""
        flags = np.ones(self.requests, dtype=np.bool_)
        flags[list(self.readerless)] = False
        return flags

    @property
    def is_all_read(self) -> bool:
        """Whether each token has a reader, as in logs that say nothing else."""
        return not (self.thinking_tokens or self.readerless)

    def as_read(self) -> Run:
        """The run with those tokens only that somebody reads."""
        if self.is_all_read:
            return self
        kept = np.repeat(self.has_reader, self.tokens)
        for index, thinking in self.thinking_tokens.items():
            start = int(self.offsets[index])
            kept[start : min(start + thinking, int(self.offsets[index + 1]))] = False
        counted = np.concatenate([[0], np.cumsum(kept)])
        return replace(self, times_s=self.times_s[kept], offsets=counted[self.offsets])

    @property
    def firsts_s(self) -> Floats:
        """The first token of each request; nan without one."""
        return self._token_s(self.offsets[:-1])

    @property
    def token_lasts_s(self) -> Floats:
        """The last token of each request; nan without one."""
        return self._token_s(self.offsets[1:] - 1)

    @property
    def lasts_s(self) -> Floats:
        """The last moment of which the log of each request tells."""
        last_s = np.where(self.tokens > 0, self.token_lasts_s, self.arrivals_s)
        told_s: Floats = np.fmax(last_s, self.ended_s)
        return told_s

    @property
    def ended_normally(self) -> Flags:
        """Which requests came to their own end, with at least a token."""
        flags: Flags = (self.outcomes == OUTCOMES.index(Outcome.FINISHED)) & (self.tokens > 0)
        return flags

    def observed(self, until_s: float | None = None) -> Window:
        """From the first arrival to the last moment that the log tells of, or later."""
        if not self.requests:
            return Window(start_s=0.0, end_s=0.0)
        end_s = float(self.lasts_s.max())
        return Window(
            start_s=float(self.arrivals_s.min()),
            end_s=end_s if until_s is None else max(end_s, until_s),
        )

    def offered_req_s(self) -> float | None:
        """The rate that the file states, or else that of its arrivals; None for a lone request."""
        if self.rate_req_s is not None:
            return self.rate_req_s
        if self.requests < 2:
            return None
        span_s = float(np.ptp(self.arrivals_s))
        return (self.requests - 1) / span_s if span_s > 0 else None

    def timeline(self, index: int) -> Timeline:
        """One request, as the pure functions of core take it."""
        ended_s, pace = float(self.ended_s[index]), float(self.paces_tok_s[index])
        made_s = self.made_times_s.get(index)
        return Timeline(
            request_id=self.request_ids[index],
            arrival_s=float(self.arrivals_s[index]),
            token_times_s=self.times_s[self.offsets[index] : self.offsets[index + 1]].tolist(),
            prompt_tokens=int(self.prompt_tokens[index]),
            outcome=OUTCOMES[self.outcomes[index]],
            ended_s=None if np.isnan(ended_s) else ended_s,
            pace_tok_s=None if np.isnan(pace) else pace,
            made_times_s=None if made_s is None else made_s.tolist(),
            slo=self.slos.get(index),
            thinking_tokens=self.thinking_tokens.get(index, 0),
            has_reader=index not in self.readerless,
        )

    def timelines(self) -> Iterator[Timeline]:
        """All requests, one at a time."""
        return (self.timeline(index) for index in range(self.requests))

    def where(self, kept: Flags) -> Run:
        """The run with these requests only."""
        places = {int(old): new for new, old in enumerate(np.flatnonzero(kept))}
        tokens = self.tokens
        return replace(
            self,
            request_ids=tuple(self.request_ids[old] for old in places),
            lines=self.lines[kept],
            arrivals_s=self.arrivals_s[kept],
            times_s=self.times_s[np.repeat(kept, tokens)],
            offsets=np.concatenate([[0], np.cumsum(tokens[kept])]),
            prompt_tokens=self.prompt_tokens[kept],
            outcomes=self.outcomes[kept],
            ended_s=self.ended_s[kept],
            paces_tok_s=self.paces_tok_s[kept],
            slos={places[r]: slo for r, slo in self.slos.items() if r in places},
            made_times_s={places[r]: t for r, t in self.made_times_s.items() if r in places},
            thinking_tokens={places[r]: n for r, n in self.thinking_tokens.items() if r in places},
            readerless=frozenset(places[r] for r in self.readerless if r in places),
            reader_idle_s={places[r]: s for r, s in self.reader_idle_s.items() if r in places},
        )

    def _token_s(self, places: Integers) -> Floats:
        has_token = self.tokens > 0
        found_s = np.full(self.requests, np.nan)
        found_s[has_token] = self.times_s[places[has_token]]
        return found_s
