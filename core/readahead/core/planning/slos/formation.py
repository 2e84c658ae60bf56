"""The next batch of an engine that keeps promises: as long as its own deadlines allow.

Who decodes gets a token in the first batch after his last one was due, so that the batch may last
until the earliest due time of those who decode. What is left of it goes to accepted prompts, first
due first, then to best-effort ones. So looser paces, and tokens that were ahead of their time, make
larger batches.

Ref: [SLOs-Serve] batch formation, dynamic batch size, best-effort tier.
Differs: due times of tokens are looked at in each batch, where the source carries out the batches
    of a plan; so what a prediction gets wrong is put right in the next batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.latency.iteration import LatencyModel
from readahead.core.planning.chunks import WorkSum
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.prompts import Bound, fill
from readahead.core.planning.readers import decode_entries
from readahead.core.planning.sequence import Sequence
from readahead.core.planning.slos.filling import Entry, Filling
from readahead.core.planning.slos.standing import Groups

_CLOSE_S = 1e-6
"""Due times that are equal but for rounding are one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What batches may be like."""

    cap_s: float
    """Longest batch."""
    margin_s: float
    """By which tokens are made before they are due."""
    is_dynamic: bool
    """False: a batch lasts as long as the tightest pace, whatever is due."""
    least_tokens: int
    """Prompt tokens that the one who has waited longest gets in any case."""


def form(
    view: EngineView,
    groups: Groups,
    shape: Shape,
    *,
    aged: Sequence | None,
    growth_blocks: int,
    now: float,
) -> Choice:
    """The next batch.

    Args:
        aged: a best-effort one whose patience has ended. He comes before accepted ones, with few
            tokens at a time, and gives way to nobody.
        growth_blocks: free ones that accepted requests will take: best-effort ones leave them.
    """
    model = view.limits.latency
    if model is None:
        return _by_tokens(view, groups)
    is_spare = bool(groups.spare_prompts or groups.spare_decoding)
    if not is_spare and not groups.prompts:
        return _decode_all(view, groups)
    limit_s = _limit_s(groups.decoding, model, shape, now)
    until = now + limit_s + _CLOSE_S
    work = WorkSum()
    served, _ = decode_entries(
        [each for each in groups.decoding if each.due_at - 1 / each.pace_tok_s < until],
        work,
        tokens_max=view.limits.batch_tokens_max,
    )
    filling = Filling(view, model, groups, work, limit_s)
    filling.aged = aged
    for sequence in sorted(groups.pulls, key=lambda each: each.due_at):
        filling.pull(sequence)
    if aged is not None:
        filling.serve_aged(shape.least_tokens)
    prompts = [each.sequence for each in sorted(groups.prompts, key=lambda each: each.due_at)]
    if prompts:
        filling.end_with(prompts[0], min(each.due_at for each in groups.prompts) - now)
    for sequence in prompts:
        filling.prompt(sequence, may_evict=True)
    spare = filling.decode(groups.spare_decoding)
    for sequence in groups.spare_prompts:
        filling.prompt(sequence, kept_blocks=growth_blocks)
    if not filling.chunks and not filling.is_full:
        if not is_spare:
            return _decode_all(view, groups)
        served += filling.decode(_without(groups.decoding, served))
    # Accepted ones first: who is in the batch already cannot give his blocks to them.
    entries = [*served, *spare, *filling.entries()]
    if not entries:
        entries = [(each, 1) for each in (*groups.decoding, *groups.spare_decoding)]
    return Choice(
        entries=entries, victims=_victims(view, filling), preempt=filling.preempt, holds_for=1
    )


def _without(decoding: list[Sequence], served: list[Entry]) -> list[Sequence]:
    """Those who are ahead of their time, first due first."""
    in_batch = {sequence for sequence, _ in served}
    ahead = [sequence for sequence in decoding if sequence not in in_batch]
    return sorted(ahead, key=lambda each: each.due_at)


def _decode_all(view: EngineView, groups: Groups) -> Choice:
    """Where no prompt can be computed, nobody sits out."""
    decodes, is_all = decode_entries(
        groups.decoding, WorkSum(), tokens_max=view.limits.batch_tokens_max
    )
    pulls = [(sequence, 0) for sequence in sorted(groups.pulls, key=lambda each: each.due_at)]
    victims = [] if view.blocks_free >= len(view.running) else list(reversed(view.running))
    if is_all and all(sequence.generated for sequence in groups.decoding):
        return Choice(entries=[*decodes, *pulls], victims=victims)
    return Choice(entries=[*decodes, *pulls], victims=victims, holds_for=1)


def _by_tokens(view: EngineView, groups: Groups) -> Choice:
    """Without an iteration-time model: everybody decodes, prompts fill the token budget."""
    work, most = WorkSum(), view.limits.batch_tokens_max
    decodes, _ = decode_entries(groups.decoding, work, tokens_max=most)
    order = [each.sequence for each in sorted(groups.prompts, key=lambda each: each.due_at)]
    bound = Bound(limit_s=float("inf"), tokens_max=most - len(decodes))
    chunks = fill(view, order, work=work, bound=bound)
    pulls = [(sequence, 0) for sequence in groups.pulls]
    return Choice(
        entries=[*decodes, *pulls, *chunks],
        victims=list(reversed(view.running)),
        holds_for=1,
    )


def _limit_s(decoding: list[Sequence], model: LatencyModel, shape: Shape, now: float) -> float:
    """How long the batch may last.

    Until the earliest due time; but where that has passed, no longer than half of a token's time,
    so that who is late catches up, and prompts are computed all the same.
    """
    if not decoding:
        return shape.cap_s
    paces = [each.pace_tok_s for each in decoding]
    if not shape.is_dynamic:
        return min(shape.cap_s, 1 / max(paces) - shape.margin_s)
    limit_s, alone_s = shape.cap_s, None
    for sequence, pace_tok_s in zip(decoding, paces, strict=True):
        left_s = sequence.due_at - now - shape.margin_s
        if left_s >= limit_s:
            continue
        if left_s <= 0:
            left_s = 0.5 / pace_tok_s
        if alone_s is None:
            work = WorkSum()
            decode_entries(decoding, work, tokens_max=len(decoding))
            alone_s = work.seconds(model)
        limit_s = min(limit_s, max(left_s, alone_s))
    return limit_s


def _victims(view: EngineView, filling: Filling) -> list[Sequence]:
    """Who gives blocks to those who run: best-effort ones, the last let in first, and the aged one
    at last; so none of them ever takes those of an accepted one."""
    if view.blocks_free >= len(view.running):
        return []
    spare = [*reversed(filling.evictable())]
    if filling.aged is not None and filling.aged.blocks:
        spare.append(filling.aged)
    known = set(spare)
    return [*spare, *(each for each in reversed(view.running) if each not in known)]
