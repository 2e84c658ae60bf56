"""How long a prompt takes to its first token on an engine that has nothing else to do."""

from __future__ import annotations

from readahead.core.latency.budget import NO_WORK
from readahead.core.latency.iteration import Curve, LatencyModel, iteration_s


def prompt_alone_s(model: LatencyModel, prompt_tokens: int, *, batch_tokens_max: int) -> float:
    """Seconds for such a prompt alone, in chunks of `batch_tokens_max`."""
    elapsed_s, done = 0.0, 0
    while done < prompt_tokens:
        chunk = min(batch_tokens_max, prompt_tokens - done)
        elapsed_s += iteration_s(NO_WORK.with_chunk(chunk, before_tokens=done), model=model)
        done += chunk
    return elapsed_s


def zero_load_curve(
    model: LatencyModel, *, context_tokens_max: int, batch_tokens_max: int
) -> Curve:
    """Seconds by prompt tokens: of each power of two, and of the longest prompt."""
    sizes = [1]
    while sizes[-1] * 2 < context_tokens_max:
        sizes.append(sizes[-1] * 2)
    if context_tokens_max > sizes[-1]:
        sizes.append(context_tokens_max)
    return Curve(
        sizes=tuple(sizes),
        values=tuple(
            prompt_alone_s(model, size, batch_tokens_max=batch_tokens_max) for size in sizes
        ),
    )
