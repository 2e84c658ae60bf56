"""Whether readers with plenty left to read sit out while a prompt is computed.

Their tokens are postponed by that, not saved. So they sit out in two cases only: where the tokens
are dearer beside a prompt than they will be without one, or where more prompts can be in time then.
While memory is short neither time nor memory is won: who answers later holds his blocks for longer.
"""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from typing import NamedTuple

from readahead.core.latency.iteration import LatencyModel
from readahead.core.planning.chunks import WorkSum
from readahead.core.planning.policy import EngineView
from readahead.core.planning.prompts import Bound
from readahead.core.planning.readers import Readers, decode_entries
from readahead.core.planning.sacrifice import Job, most_in_time
from readahead.core.planning.sequence import Sequence

DEARER = 1.25
"""Beside a prompt, times what they cost without, from which on tokens are postponed: what is won
must outweigh that they need an iteration later."""


def pays(
    view: EngineView, readers: Readers, prompts: Ordered[Sequence], *, bound: Bound, now: float
) -> bool:
    """Whether those who are not poor had better sit out.

    Args:
        prompts: all that are not computed.
        bound: of an iteration beside those who decode.
    """
    model = view.limits.latency
    if model is None:
        return True  # nobody knows what their tokens cost
    fitting = fitting_now(view, prompts)
    if len(fitting) == len(prompts) and is_dearer(readers, model, bound.tokens_max):
        return True
    wanted = what_is_wanted(fitting, model, now)
    beside = in_time(wanted, token_s(readers.decoding, model, bound))
    if beside == len(wanted):
        return False
    return in_time(wanted, token_s(readers.poor, model, bound)) > beside


def is_dearer(readers: Readers, model: LatencyModel, prompt_tokens: int) -> bool:
    """Whether the tokens of who is not poor take longer beside so many of a prompt."""
    everybody, poor = _decodes(readers.decoding), _decodes(readers.poor)
    later_s = everybody.seconds(model) - (poor.seconds(model) if poor.requests else 0.0)
    everybody.add(0, prompt_tokens)
    poor.add(0, prompt_tokens)
    return everybody.seconds(model) - poor.seconds(model) > DEARER * later_s


def fitting_now(view: EngineView, prompts: Ordered[Sequence]) -> list[Sequence]:
    """Those that have blocks, or can have free ones together, first due first."""
    free, fitting = view.blocks_free, []
    for sequence in sorted(prompts, key=lambda s: s.due_at):
        blocks = 0 if sequence.blocks else view.limits.blocks_for(sequence.known)
        if blocks <= free:
            free -= blocks
            fitting.append(sequence)
    return fitting


def token_s(decoding: list[Sequence], model: LatencyModel, bound: Bound) -> float:
    """Seconds that a prompt token takes where these decode in each iteration."""
    work = _decodes(decoding)
    tokens = max(1, work.chunk_within(bound.limit_s, 0, bound.tokens_max, model))
    work.add(0, tokens)
    return work.seconds(model) / tokens


class Wanted(NamedTuple):
    """A prompt to compute."""

    due_s: float
    """From now."""
    tokens: int
    attention_s: float
    """What it takes over the same for each token."""


def in_time(prompts: Ordered[Wanted], prompt_token_s: float) -> int:
    """How many of these, first due first, can be in time at so many seconds a token."""
    return most_in_time(
        [Job(due_s, tokens * prompt_token_s + beyond_s) for due_s, tokens, beyond_s in prompts]
    )


def what_is_wanted(prompts: Ordered[Sequence], model: LatencyModel, now: float) -> list[Wanted]:
    """Each prompt's share of time, in this order."""
    pair_s = model.time_scale * max([plane.prefill_pair_s for plane in model.planes])
    found = []
    for sequence in prompts:
        tokens = sequence.missing
        pairs = tokens * (sequence.known - tokens) + tokens * tokens // 2
        found.append(Wanted(sequence.due_at - now, tokens, pair_s * pairs))
    return found


def _decodes(decoding: list[Sequence]) -> WorkSum:
    work = WorkSum()
    decode_entries(decoding, work, tokens_max=len(decoding))
    return work
