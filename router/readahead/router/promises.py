"""What sessions are promised: from what callers ask for, by what workers say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from readahead.core.cluster import Role, WorkerDescription
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import SloState
from readahead.core.promise import PromiseClock
from readahead.core.slo import NamedPromise, SloAsked, SloClass, SloConfig, promised


class Promises:
    """Makes promises under one router's settings."""

    def __init__(self, config: SloConfig, *, remote_prefill_tokens_min: int) -> None:
        self._config = config
        self._classes: Mapping[str, SloClass] = config.known()
        self._remote_prefill_tokens_min = remote_prefill_tokens_min

    def make(
        self,
        asked: SloAsked | None,
        workers: Iterable[WorkerDescription],
        *,
        prompt_tokens: int,
    ) -> NamedPromise | None:
        """The promise to one caller; None where he asks for none.

        Raises:
            ReadaheadError: INVALID_REQUEST; there is no such class, or not all bounds are given.
        """
        if asked is None:
            return None
        try:
            return promised(
                asked,
                self._classes,
                zero_load_ttft_s=self._zero_load_ttft_s(workers, prompt_tokens),
                ttft_s=self._config.ttft_s,
            )
        except ValueError as error:
            raise ReadaheadError(
                Reason.INVALID_REQUEST, f"{asked.parameter}: {error}.", parameter=asked.parameter
            ) from error

    def _zero_load_ttft_s(
        self, workers: Iterable[WorkerDescription], prompt_tokens: int
    ) -> float | None:
        """Of the fastest workers, as they say; a handover's copy is not counted."""
        stated_s = self._config.zero_load_ttft_s(prompt_tokens)
        if stated_s is not None:
            return stated_s
        curves = [(each.role, each.zero_load) for each in workers if each.zero_load is not None]
        decode = [curve for role, curve in curves if role is Role.DECODE]
        prefill = [curve for role, curve in curves if role is Role.PREFILL]
        if prompt_tokens < self._remote_prefill_tokens_min or not prefill:
            return min((curve.at(prompt_tokens) for curve in decode), default=None)
        first_decode_s = min((curve.at(1) for curve in decode), default=0.0)
        return min(curve.at(prompt_tokens) for curve in prefill) + first_decode_s


class SessionPromise:
    """One session's promise, and how it is kept, as the router sees the tokens come."""

    __slots__ = ("clock", "first_token_s", "name")

    def __init__(self, named: NamedPromise, *, arrived_at: float) -> None:
        self.name = named.name
        self.first_token_s = named.promise.first_token_s
        self.clock = PromiseClock(named.promise, arrived_at=arrived_at)

    def state(self) -> SloState:
        """For Explain, and for the last frame."""
        return SloState(
            name=self.name,
            first_token_s=self.first_token_s,
            is_kept=self.clock.is_kept,
            late_s=self.clock.late_s,
        )
