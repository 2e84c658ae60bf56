"""Legs that stop here, so that another worker can go on with them.

The router decides who owns a leg. A leg that has stopped makes no token until its router says that
it is to go on, or until it has heard nothing for so long that there may be no router any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from readahead.core.errors import ReadaheadError, Reason
from readahead.services.engine.engine import Engine, LegKey
from readahead.services.worker.running_leg import RunningLeg

STOPPED_S_MAX = 15.0
"""A stopped leg goes on by itself after this, which is longer than a router gives a move; what the
router has lost track of is then dropped by it, token for token, and cancelled."""
SETTLE_S_MAX = 5.0
"""Longest wait for the last tokens of a leg that has stopped: many engine steps."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedLeg:
    """What another worker needs to go on."""

    handover: bytes
    output_token_ids: list[int]
    """All output so far, that of earlier workers included."""


class Departures:
    """Stops legs and lets them go on."""

    def __init__(
        self,
        engine: Engine,
        find: Callable[[LegKey], RunningLeg | None],
        *,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._engine = engine
        self._find = find
        self._tasks = tasks

    async def stop(self, key: LegKey, move: int) -> StoppedLeg:
        """Stops a leg. All of its tokens are on the router's stream when this returns.

        Raises:
            ReadaheadError: REQUEST_NOT_FOUND; it does not generate here. UNSUPPORTED; it cannot be
                moved. OVERLOADED; there is no room to keep its KV. CANCELLED; the move was called
                off. INVALID_REQUEST; it has stopped for another move. ENGINE_FAILED.
        """
        leg = self._find(key)
        if leg is None or leg.end is not None:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "the leg does not run here")
        _check_not_called_off(leg, move)
        if leg.stopped_for:
            raise ReadaheadError(
                Reason.INVALID_REQUEST, f"it has stopped for move {leg.stopped_for}"
            )
        leg.stopped_for = move
        try:
            stopped = await self._stop(leg, key, move)
        except BaseException:
            leg.stopped_for = 0
            if leg.end is None:
                self._tasks.create_task(self._go_on(key))
            raise
        loop = asyncio.get_running_loop()
        leg.guard = loop.call_later(STOPPED_S_MAX, self._give_up_waiting, key, move)
        return stopped

    async def resume(self, key: LegKey, move: int) -> None:
        """Calls a move off. Its leg goes on, if it has stopped for this very move."""
        leg = self._find(key)
        if leg is None:
            return
        leg.called_off = max(leg.called_off, move)
        if leg.stopped_for != move or leg.guard is None:  # while it is stopping, `stop` sees it
            return
        leg.guard.cancel()
        leg.guard = None
        leg.stopped_for = 0
        await self._engine.resume_leg(key)

    async def _stop(self, leg: RunningLeg, key: LegKey, move: int) -> StoppedLeg:
        offer = await self._engine.offer_leg(key)
        try:
            async with asyncio.timeout(SETTLE_S_MAX):
                await leg.wait_told(offer.output_tokens)
        except TimeoutError:
            raise ReadaheadError(
                Reason.ENGINE_FAILED, "the leg's last tokens did not come"
            ) from None
        if leg.end is not None:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "the leg has just ended")
        _check_not_called_off(leg, move)
        return StoppedLeg(handover=offer.handover, output_token_ids=list(leg.output_token_ids))

    async def _go_on(self, key: LegKey) -> None:
        try:
            await self._engine.resume_leg(key)
        except ReadaheadError as error:
            _log.warning("leg_not_resumed", request_id=key[0], cause=error.message)
        except Exception as error:  # one leg's; raised here, it would end all the worker's legs
            _log.error("leg_not_resumed", request_id=key[0], exc_info=error)

    def _give_up_waiting(self, key: LegKey, move: int) -> None:
        leg = self._find(key)
        if leg is not None and leg.end is None:
            _log.warning("leg_resumed_unasked", request_id=key[0], stopped_s=STOPPED_S_MAX)
            leg.guard, leg.stopped_for, leg.called_off = None, 0, move
            self._tasks.create_task(self._go_on(key))


def _check_not_called_off(leg: RunningLeg, move: int) -> None:
    if move <= leg.called_off:
        raise ReadaheadError(Reason.CANCELLED, f"move {move} was called off")
