"""When a migration is worth it: by load, by load under cover of unread text, or by need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from readahead.core.config import MigrationConfig
from readahead.core.placement.decoder import Decoder
from readahead.core.placement.forecast import idle_ahead_s
from readahead.core.request import RequestId, RequestView, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A running request that should go to another worker."""

    request_id: RequestId
    source: WorkerId
    target: WorkerId
    reason: str
    """One sentence for Explain."""


class Trigger(Protocol):
    """Chooses moves, and makes the decoders foresee them."""

    def choose(self, decoders: Sequence[Decoder], *, now: float) -> list[Move]:
        """Those to begin now, each within `Rules`."""
        ...


class Rules:
    """What holds whatever the trigger: cooldown, moves at once, room at the target."""

    def __init__(self, config: MigrationConfig) -> None:
        self.config = config

    def may_leave(self, request: RequestView, source: Decoder, *, now: float) -> bool:
        """It generates, has not moved of late, and its worker moves nothing else."""
        config = self.config
        is_rested = now >= request.moved_at + config.cooldown_s
        return request.is_movable and is_rested and source.moves < config.moves_per_worker_max

    def targets(
        self, request: RequestView, source: Decoder, decoders: Sequence[Decoder]
    ) -> list[Decoder]:
        """Who can take it."""
        config = self.config
        return [
            each
            for each in decoders
            if each is not source
            and each.moves < config.moves_per_worker_max
            and each.can_take(request, kv_share_max=config.kv_share_max)
        ]


def move(request: RequestView, source: Decoder, target: Decoder, reason: str) -> Move:
    """Takes note of a choice."""
    source.give(request)
    target.take(request)
    return Move(
        request_id=request.request_id,
        source=source.worker_id,
        target=target.worker_id,
        reason=reason,
    )


class LoadTrigger:
    """From workers that are short of KV memory to the freest, the shortest request first.

    A move happens only if the target stays freer than the source, so that nothing swings back. A
    worker that drains is short of everything.

    With `is_covered`, only requests whose unread text hides the downtime may move.

    Ref: [Llumnix] migration from the least to the most free worker, and off those that drain.
    Differs: no priorities and no demand of the head of the queue beyond its prompt.
    """

    def __init__(self, rules: Rules, *, is_covered: bool) -> None:
        self._rules, self._is_covered = rules, is_covered

    def choose(self, decoders: Sequence[Decoder], *, now: float) -> list[Move]:
        """Those to begin now."""
        moves = []
        for source in sorted(decoders, key=Decoder.freeness_tokens):
            while chosen := self._next(source, decoders, now):
                moves.append(chosen)
        return moves

    def _next(self, source: Decoder, decoders: Sequence[Decoder], now: float) -> Move | None:
        config = self._rules.config
        free = source.freeness_tokens()
        if free >= config.load_below_tokens:
            return None
        movable = [
            each
            for each in source.readers
            if self._rules.may_leave(each, source, now=now) and self._is_hidden(each, now)
        ]
        if not movable:
            return None
        victim = min(movable, key=lambda each: (each.context_tokens, each.request_id))
        targets = self._rules.targets(victim, source, decoders)
        if not targets:
            return None
        target = max(targets, key=Decoder.freeness_tokens)
        is_freer = target.freeness_tokens() >= free + config.load_gap_tokens
        after = target.freeness_tokens(joins=victim)
        if not is_freer or after < source.freeness_tokens(leaves=victim):
            return None
        reason = (
            f"{source.worker_id} has room for {free:.0f} tokens a request, "
            f"{target.worker_id} for {after:.0f} with this one"
        )
        return move(victim, source, target, reason)

    def _is_hidden(self, request: RequestView, now: float) -> bool:
        config = self._rules.config
        return not self._is_covered or request.slack_s(now) >= config.downtime_s + config.margin_s


class NeedTrigger:
    """Only who has nothing left to read, now or by the time the move lands, and gains by it.

    He gains if the target will idle him, and its own readers, less than staying would, by more
    than the move takes. The least slack goes first. A worker that drains is emptied besides, each
    reader while his unread text hides the downtime.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def choose(self, decoders: Sequence[Decoder], *, now: float) -> list[Move]:
        """Those to begin now."""
        in_need = [
            (each.slack_s(now), each.request_id, each, source)
            for source in decoders
            for each in source.readers
            if self._is_due(each, source, now)
        ]
        moves = []
        for slack_s, _, request, source in sorted(in_need, key=lambda found: found[:2]):
            if not self._rules.may_leave(request, source, now=now):
                continue
            targets = self._rules.targets(request, source, decoders)
            if slack_s > self._rules.config.landing_s(request.context_tokens):
                chosen = _drain(request, source, targets)
            else:
                chosen = self._rescue(request, source, targets, now)
            if chosen is not None:
                moves.append(chosen)
        return moves

    def _is_due(self, request: RequestView, source: Decoder, now: float) -> bool:
        config = self._rules.config
        slack_s = request.slack_s(now)
        if slack_s <= config.landing_s(request.context_tokens):
            return True
        return source.is_draining and slack_s >= config.downtime_s + config.margin_s

    def _rescue(
        self, request: RequestView, source: Decoder, targets: Sequence[Decoder], now: float
    ) -> Move | None:
        """To where he gains most, if he gains enough anywhere."""
        if not source.token_s():
            return None
        starved_s = source.worker.observed_at - request.delivered_at  # in the worker's last report
        stay_s = max(source.token_s(), starved_s)
        config = self._rules.config
        landing_s = config.landing_s(request.context_tokens)
        horizon_s = self._horizon_s(request, now)
        slack_s, pace_tok_s = request.slack_s(now), request.pace_tok_s
        staying_s = idle_ahead_s(slack_s, [(horizon_s, 1 / stay_s)], pace_tok_s=pace_tok_s)
        best, best_gain_s = None, landing_s + config.margin_s
        for target in targets:
            token_s = target.token_s(joins=request)
            if not 0 < token_s <= stay_s:  # it would be no better off there than here
                continue
            phases = [
                (landing_s - config.downtime_s, 1 / stay_s),
                (config.downtime_s, 0.0),
                (horizon_s - landing_s, 1 / token_s),
            ]
            moving_s = idle_ahead_s(slack_s, phases, pace_tok_s=pace_tok_s)
            gain_s = staying_s - moving_s - _added_s(target, request, horizon_s, now)
            if gain_s > best_gain_s:
                best, best_gain_s = target, gain_s
        if best is None:
            return None
        reason = (
            f"out of text in {slack_s:.2f} s; {best.worker_id} idles him {best_gain_s:.2f} s less"
        )
        return move(request, source, best, reason)

    def _horizon_s(self, request: RequestView, now: float) -> float:
        """How far ahead to look: no further than he can read of it."""
        left_tokens = request.output_tokens_max - request.tokens_delivered
        reads_s = max(0.0, request.slack_s(now)) + left_tokens / request.pace_tok_s
        return min(self._rules.config.horizon_s, reads_s)


def _added_s(target: Decoder, joins: RequestView, horizon_s: float, now: float) -> float:
    """Idle time that one more brings to those who are there."""
    before_s, after_s = target.token_s(), target.token_s(joins=joins)
    if not 0 < before_s < after_s:
        return 0.0
    added_s = 0.0
    for reader in target.readers:
        if reader.pace_tok_s * after_s <= 1:
            continue
        slack_s, pace_tok_s = reader.slack_s(now), reader.pace_tok_s
        later_s = idle_ahead_s(slack_s, [(horizon_s, 1 / after_s)], pace_tok_s=pace_tok_s)
        added_s += later_s
        added_s -= idle_ahead_s(slack_s, [(horizon_s, 1 / before_s)], pace_tok_s=pace_tok_s)
    return added_s


def _drain(request: RequestView, source: Decoder, targets: Sequence[Decoder]) -> Move | None:
    if not targets:
        return None
    target = max(targets, key=Decoder.freeness_tokens)
    return move(request, source, target, f"{source.worker_id} drains, and he has text left")
