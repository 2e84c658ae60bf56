"""Parking inside vLLM's scheduler: a running request gives up its device blocks, its KV waits in
host memory, and it comes back here or on another worker.

A mixin for a scheduler, to go with the gRPC KV connector, which keeps the copies. Asynchronous
scheduling adds three things to a park: tokens under way are delivered after it; blocks return to
the pool one step later; and such a late token may end the parked request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.engine.core import EngineCore
from vllm.v1.request import RequestStatus

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.clock import monotonic_s
from readahead.services.kv.core_calls import leg_id

if TYPE_CHECKING:
    _Scheduler = Any
else:
    _Scheduler = object


class Parking(_Scheduler):  # type: ignore[misc,unused-ignore]
    """Goes before vLLM's scheduler in a class's bases. Everything is called between two steps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parked: dict[str, Any] = {}
        """Requests by the engine's id; in none of vLLM's queues."""

    def park(self, request_id: str) -> int:
        """Frees a running request's blocks once they are copied. Returns its tokens in the copy.

        Raises:
            ReadaheadError: REQUEST_NOT_FOUND; it does not run. OVERLOADED; the host has no room.
                UNSUPPORTED; the connector keeps no copies.
        """
        request = self.requests.get(request_id)
        if request is None or request.status is not RequestStatus.RUNNING:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "The request does not run here.")
        tokens: int = request.num_computed_tokens
        (block_ids,) = self.kv_cache_manager.get_block_ids(request_id)
        _copies(self).park(request, block_ids)
        self.running.remove(request)
        self._preempt_request(request, monotonic_s())
        self.waiting.remove_requests([request])
        # Else a resume in the very next step takes the request for one that the worker still has.
        self.prev_step_scheduled_req_ids.discard(request_id)
        self.parked[request_id] = request
        return tokens

    def resume(self, request_id: str) -> bool:
        """Queues a parked request in front; its KV is loaded as soon as there are blocks for it.

        Returns:
            False iff it is not parked; it may have ended meanwhile.
        """
        request = self.parked.pop(request_id, None)
        if request is None or request.is_finished():
            return False
        self.waiting.prepend_request(request)
        return True

    def offer(self, request_id: str) -> dict[str, Any]:
        """Transfer parameters with which another engine pulls a parked request's KV.

        The request stays parked; whoever asked ends it once the other engine has taken over.

        Raises:
            ReadaheadError: REQUEST_NOT_FOUND; it is not parked.
        """
        if request_id not in self.parked:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "The request is not parked here.")
        params: dict[str, Any] = _copies(self).offer(request_id)
        return params

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        """A parked request can be aborted like any other."""
        finished = super().finish_requests(request_ids, finished_status)
        self._sweep()
        return finished

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """A token that was under way at the park may have ended the request."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self._sweep()
        return outputs

    def has_finished_requests(self) -> bool:
        """vLLM takes a request in no queue for a finished one, and would step for ever."""
        if self.finished_req_ids:
            return True
        running, waiting = self.get_request_counts()
        return bool(len(self.requests) > running + waiting + len(self.parked))

    def engine_id_of(self, leg: str) -> str | None:
        """The engine's id of a request, running or parked, by the id it was submitted under."""
        return next((each for each in self.requests if leg_id(each) == leg), None)

    def _sweep(self) -> None:
        if self.parked:
            ended = [key for key, request in self.parked.items() if request.is_finished()]
            for key in ended:
                del self.parked[key]


class ParkingScheduler(Parking, AsyncScheduler):  # type: ignore[misc]  # vLLM is untyped here
    """vLLM's own scheduler, which parks. Runs with asynchronous scheduling off as well as on."""


def _copies(scheduler: Any) -> Any:
    side = getattr(scheduler.connector, "connector_scheduler", None)
    if not hasattr(side, "parked_copies"):
        raise ReadaheadError(Reason.UNSUPPORTED, "Parking needs the gRPC KV connector.")
    return side


# Utility calls: run in the engine core between two steps. A refusal is a reason, since vLLM passes
# on no exception's attributes.


def _park(core: Any, leg_ids: Sequence[str]) -> dict[str, str]:
    """Reason by leg; "" where it is parked."""
    return {leg: _reason(core, leg, "park") for leg in leg_ids}


def _resume(core: Any, leg_ids: Sequence[str]) -> list[str]:
    """Returns the legs that are not parked."""
    return [leg for leg in leg_ids if not _each(core, leg, "resume")]


def _offer(core: Any, leg: str) -> dict[str, Any]:
    """Transfer parameters for another engine; empty where the leg is not parked."""
    try:
        params: dict[str, Any] = _each(core, leg, "offer")
    except ReadaheadError:
        return {}
    return params


def _parked(core: Any) -> dict[str, dict[str, int]]:
    """What is parked: `tokens` so far and `copied_tokens`, 0 once the copy is lost."""
    scheduler = core.scheduler
    copies = _copies(scheduler).parked_copies
    return {
        leg_id(key): {
            "tokens": request.num_tokens,
            "copied_tokens": copies[key].tokens if key in copies else 0,
        }
        for key, request in scheduler.parked.items()
    }


def _reason(core: Any, leg: str, what: str) -> str:
    try:
        _each(core, leg, what)
    except ReadaheadError as error:
        return error.reason.value
    return ""


def _each(core: Any, leg: str, what: str) -> Any:
    request_id = core.scheduler.engine_id_of(leg)
    if request_id is None:
        if what == "resume":
            return False
        raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "There is no such request here.")
    return getattr(core.scheduler, what)(request_id)


EngineCore.readahead_park = _park
EngineCore.readahead_resume = _resume
EngineCore.readahead_offer = _offer
EngineCore.readahead_parked = _parked
