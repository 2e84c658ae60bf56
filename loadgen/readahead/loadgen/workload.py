"""What is sent: every request of a run, made before the run starts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from readahead.loadgen.arrivals import first_arrivals_s, poisson_arrivals_s
from readahead.loadgen.lengths import Lengths
from readahead.loadgen.prompts import Prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRequest:
    """One request to come."""

    request_id: str
    arrival_s: float
    """Intended send time, from the run's start."""
    prompt: str | Sequence[int]
    """Text, or token ids."""
    prompt_tokens: int
    """Intended length; words for a text whose tokenizer is not known."""
    output_tokens: int
    """Asked for as `max_tokens`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """From which a workload follows, to the byte."""

    seed: int
    rate_req_s: float
    requests: int | None
    duration_s: float | None
    prompt_lengths: Lengths
    output_lengths: Lengths


def plan(spec: WorkloadSpec, prompts: Prompts, *, run_id: str) -> list[PlannedRequest]:
    """The workload. Arrivals, lengths and prompts have their own random streams of one seed, so
    that changing one leaves the others as they were."""
    arrivals_rng, prompt_rng, output_rng, text_rng = (
        random.Random(f"{spec.seed}/{purpose}")
        for purpose in ("arrivals", "prompt_lengths", "output_lengths", "prompts")
    )
    arrivals_s = first_arrivals_s(
        poisson_arrivals_s(arrivals_rng, rate_req_s=spec.rate_req_s),
        requests=spec.requests,
        duration_s=spec.duration_s,
    )
    planned = []
    for index, arrival_s in enumerate(arrivals_s):
        prompt_tokens = spec.prompt_lengths.draw(prompt_rng)
        planned.append(
            PlannedRequest(
                request_id=f"{run_id}-{index:06d}",
                arrival_s=arrival_s,
                prompt=prompts.make(prompt_tokens, text_rng),
                prompt_tokens=prompt_tokens,
                output_tokens=spec.output_lengths.draw(output_rng),
            )
        )
    return planned
