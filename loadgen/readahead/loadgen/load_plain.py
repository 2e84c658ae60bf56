"""Requests of given lengths by people who ask once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from readahead.workload.arrivals import ClosedLoop, first_times_s
from readahead.workload.arrivals_kinds import Generated
from readahead.workload.lengths import Lengths
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSpec:
    """From which such a workload follows, to the byte."""

    seed: int
    arrivals: Generated | ClosedLoop
    requests: int | None
    """None: the duration says the end."""
    duration_s: float | None
    """Nobody arrives later than this; in a closed loop nobody begins later. None: the number of
    requests says the end."""
    prompt_lengths: Lengths
    output_lengths: Lengths

    @property
    def rate_req_s(self) -> float | None:
        """Mean rate of the arrivals; None: they have no one rate."""
        return getattr(self.arrivals, "rate_req_s", None)


def plain_sessions(spec: PlainSpec, reader: Reader) -> Sequence[Session]:
    """The workload, a session per request.

    Arrivals, prompts' and answers' lengths have their own random streams of one seed, so that
    changing one leaves the others as they were.

    Raises:
        ValueError: nobody arrives, or nothing says when it ends.
    """
    arrivals_rng, prompt_rng, output_rng = (
        random.Random(f"{spec.seed}/{purpose}")
        for purpose in ("arrivals", "prompt_lengths", "output_lengths")
    )
    sessions = [
        _session(
            index,
            arrival_s,
            reader,
            prompt_tokens=spec.prompt_lengths.draw(prompt_rng),
            output_tokens=spec.output_lengths.draw(output_rng),
        )
        for index, arrival_s in enumerate(_times_s(spec, arrivals_rng))
    ]
    if not sessions:
        raise ValueError("no request arrives within the duration at this rate")
    return sessions


def _times_s(spec: PlainSpec, rng: random.Random) -> Sequence[float]:
    if isinstance(spec.arrivals, ClosedLoop):
        if spec.requests is None:
            raise ValueError("a closed loop needs a number of requests")
        return [0.0] * spec.requests
    if spec.requests is None and spec.duration_s is None:
        raise ValueError("a run needs a number of requests or a duration")
    endless = spec.arrivals.times_s(rng)
    return list(first_times_s(endless, sessions=spec.requests, duration_s=spec.duration_s))


def _session(
    index: int, arrival_s: float, reader: Reader, *, prompt_tokens: int, output_tokens: int
) -> Session:
    segment = Segment(f"plain/{index}", prompt_tokens)
    return Session(
        session_id=f"plain-{index:06d}",
        arrival_s=arrival_s,
        scenario="plain",
        tenant="default",
        user=f"user-{index:06d}",
        reader=reader,
        turns=(Turn(segments=(segment,), output_tokens=output_tokens),),
    )
