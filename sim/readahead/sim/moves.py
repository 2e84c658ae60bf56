"""Running legs that move from one decode worker to another while they go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from readahead.core.errors import Reason
from readahead.core.messages import (
    AbortMigration,
    Event,
    LegFailed,
    MigrateLeg,
    MigrationCommitted,
    MigrationFailed,
)
from readahead.core.planning.sequence import Sequence
from readahead.core.request import WorkerId
from readahead.sim.engine import Engine
from readahead.sim.engine_leg import EngineLeg, Key
from readahead.sim.links import Network, Transfer

ROOM_TOKENS = 256
"""Room that is kept at the target for tokens made while the KV is copied."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Move:
    command: MigrateLeg
    source: Engine
    target: Engine
    leg: EngineLeg
    """At the source."""
    taken: EngineLeg
    """At the target."""
    copied_tokens: int
    transfer: Transfer | None = None
    has_stopped: bool = False
    """The source has given it away."""


class Moves:
    """Copies a leg's KV while the leg runs, then what came since while it stands still.

    The source frees its KV when it stops, some milliseconds before the target has the rest.
    """

    def __init__(
        self,
        engines: Mapping[WorkerId, Engine],
        *,
        network: Network,
        tell: Callable[[Event], None],
        landed: Callable[[Key, Engine], None],
    ) -> None:
        self._engines = engines
        self._network = network
        self._tell = tell
        self._landed = landed
        self._moves: dict[Key, _Move] = {}
        self.begun = 0
        self.committed = 0
        self.failed = 0

    def begin(self, command: MigrateLeg) -> None:
        """Keeps room at the target, and starts to copy."""
        key = (command.request_id, command.attempt)
        source, target = self._engines[command.source], self._engines.get(command.target)
        leg = source.find(key)
        self.begun += 1
        if leg is None or target is None or not _runs(leg.sequence):
            self._fail(command, Reason.OVERLOADED, "it does not run at the source")
            return
        sequence = leg.sequence
        taken = EngineLeg(
            leg=leg.leg,
            sequence=replace(sequence, computed=0, generated=0, blocks=0, is_pulled=True),
            output_tokens=leg.output_tokens,
            stretches=leg.stretches,
            right=leg.right,
            prefix=leg.prefix,
            answer_key=leg.answer_key,
        )
        most = sequence.prompt_tokens + leg.sequence.output_tokens_max
        tokens = min(sequence.known + ROOM_TOKENS, most)
        if not target.reserve(taken, tokens=tokens):
            self._fail(command, Reason.OVERLOADED, "the target has no room")
            return
        move = _Move(
            command=command,
            source=source,
            target=target,
            leg=leg,
            taken=taken,
            copied_tokens=sequence.known,
        )
        self._moves[key] = move
        move.transfer = self._send(move, sequence.known, partial(self._copied, move))

    def abort(self, command: AbortMigration) -> None:
        """Gives a move up, if it is under way."""
        move = self._moves.get((command.request_id, command.attempt))
        if move is None or move.command.move != command.move:
            return
        self._drop(move)
        if move.has_stopped and move.source.is_alive:
            self._tell(
                LegFailed(
                    request_id=command.request_id,
                    attempt=command.attempt,
                    worker_id=command.source,
                    reason=Reason.WORKER_LOST,
                    message="it had been given away",
                )
            )

    def lost(self, engine: Engine) -> None:
        """A worker is gone: what it gives or takes stops. The router aborts what it knows of."""
        for move in list(self._moves.values()):
            if engine in (move.source, move.target) and move.transfer is not None:
                self._network.stop(move.transfer)
                move.transfer = None

    def _copied(self, move: _Move) -> None:
        move.transfer = None
        if not self._is_there(move):
            self._drop(move)  # it has ended, or was preempted and has no KV to copy
            if move.source.find(move.leg.key) is move.leg:
                self._fail(move.command, Reason.KV_EXPIRED, "it was preempted at the source")
            return
        needed = move.leg.sequence.known + 1
        held = move.taken.sequence.blocks * move.target.batch.limits.block_tokens
        if needed >= held:
            self._drop(move)
            self._fail(move.command, Reason.OVERLOADED, "it outgrew the room that was kept")
            return
        move.source.give_away(move.leg, partial(self._stopped, move))

    def _stopped(self, move: _Move) -> None:
        move.has_stopped = True
        rest = max(0, move.leg.sequence.known - move.copied_tokens)
        move.transfer = self._send(move, rest, partial(self._arrived, move))

    def _arrived(self, move: _Move) -> None:
        command, sequence = move.command, move.leg.sequence
        key = (command.request_id, command.attempt)
        move.transfer = None
        del self._moves[key]
        self.committed += 1
        self._landed(key, move.target)
        self._tell(
            MigrationCommitted(
                request_id=command.request_id,
                attempt=command.attempt,
                move=command.move,
                source=command.source,
                target=command.target,
            )
        )
        if move.target.find(key) is move.taken:
            move.target.adopt(
                move.taken, generated=sequence.generated, reads_until=sequence.reads_until
            )

    def _is_there(self, move: _Move) -> bool:
        sequence = move.leg.sequence
        found = move.source.find(move.leg.key) is move.leg
        return found and sequence.blocks > 0 and sequence.missing == 1

    def _send(self, move: _Move, tokens: int, landed: Callable[[], None]) -> Transfer:
        return self._network.send(
            source=move.command.source,
            target=move.command.target,
            size_bytes=float(tokens * self._network.kv_token_bytes),
            landed=landed,
        )

    def _drop(self, move: _Move) -> None:
        if move.transfer is not None:
            self._network.stop(move.transfer)
            move.transfer = None
        self._moves.pop(move.leg.key, None)
        move.leg.taker = None
        if move.target.is_alive and move.target.find(move.taken.key) is move.taken:
            move.target.cancel(move.taken.key)

    def _fail(self, command: MigrateLeg, reason: Reason, message: str) -> None:
        self.failed += 1
        self._tell(
            MigrationFailed(
                request_id=command.request_id,
                attempt=command.attempt,
                move=command.move,
                source=command.source,
                target=command.target,
                reason=reason,
                message=message,
            )
        )


def _runs(sequence: Sequence) -> bool:
    """Whether it makes tokens: it is neither preempted nor parked nor on its way back from that."""
    return sequence.generated > 0 and sequence.blocks > 0 and not sequence.is_copied
