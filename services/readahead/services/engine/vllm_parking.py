"""Parking inside vLLM's scheduler: a running request gives up its device blocks, its KV waits in
host memory, and it comes back here or on another worker.

A mixin for a scheduler. The copies are the gRPC KV connector's; with another connector nothing can
be parked, and nothing else changes. Asynchronous scheduling adds three things to a park: tokens
under way are delivered after it; blocks return to the pool one step later; and such a late token
may end the parked request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.engine.core import EngineCore
from vllm.v1.request import RequestStatus

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.planning.policy import HostRoom
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
        self.parked_by_plan: set[str] = set()
        """Those of them that the planner brings back. The others wait for a command."""
        self._block_bytes = _block_bytes(self.kv_cache_config)

    # Commands

    def park(self, request_id: str) -> int:
        """Frees a running request's blocks once they are copied. Returns its tokens in the copy.

        One that a plan has parked, with a copy, stays so and waits for a command from now on.

        Raises:
            ReadaheadError: REQUEST_NOT_FOUND; it does not run. OVERLOADED; the host has no room.
                UNSUPPORTED; the connector keeps no copies.
        """
        copies = _copies(self)
        if request_id in self.parked_by_plan and request_id in copies.parked_copies:
            self.parked_by_plan.remove(request_id)
            return int(copies.parked_copies[request_id].tokens)
        request = self.requests.get(request_id)
        if request is None or request.status is not RequestStatus.RUNNING:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "The request does not run here.")
        return self.put_away(request, is_copied=True)

    def resume(self, request_id: str) -> bool:
        """Queues a parked request in front; its KV is loaded as soon as there are blocks for it.

        Returns:
            False iff it is not parked; it may have ended meanwhile.
        """
        request = self.parked.pop(request_id, None)
        self.parked_by_plan.discard(request_id)
        if request is None or request.is_finished():
            return False
        self.bring_back(request)
        return True

    def offer(self, request_id: str) -> dict[str, Any]:
        """Transfer parameters with which another engine pulls a parked request's KV.

        The request stays parked until it is resumed by a command or ended: whoever asked ends it
        once the other engine has taken over.

        Raises:
            ReadaheadError: REQUEST_NOT_FOUND; it is not parked, or its KV was not copied.
        """
        if request_id not in self.parked:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "The request is not parked here.")
        params: dict[str, Any] = _copies(self).offer(request_id)
        self.parked_by_plan.discard(request_id)
        return params

    # For the scheduler, which does more at each

    def put_away(self, request: Any, *, is_copied: bool) -> int:
        """Parks a running request. Returns the tokens whose KV it had.

        Raises:
            ReadaheadError: OVERLOADED; the host has no room for a copy. REQUEST_NOT_FOUND; it makes
                no text: it may end by a token under way, and then its KV is wanted elsewhere.
                Nothing has changed.
        """
        if (request.kv_transfer_params or {}).get("do_remote_decode"):
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "A prefill leg makes no text.")
        request_id: str = request.request_id
        tokens: int = request.num_computed_tokens
        if is_copied:
            (block_ids,) = self.kv_cache_manager.get_block_ids(request_id)
            _copies(self).park(request, block_ids)
        self.running.remove(request)
        self._preempt_request(request, monotonic_s())
        self.waiting.remove_requests([request])
        # Else a resume in the very next step takes the request for one that the worker still has.
        self.prev_step_scheduled_req_ids.discard(request_id)
        self.parked[request_id] = request
        return tokens

    def bring_back(self, request: Any) -> None:
        """Puts a request that was parked in front of those that wait."""
        self.waiting.prepend_request(request)

    def host_room(self) -> HostRoom | None:
        """Where a plan can have requests parked; None where it cannot."""
        side = _side(self)
        if side is None:
            return None
        coming = sum([len(blocks) for _, blocks in self.deferred_frees])
        return HostRoom(
            blocks_free=side.free_blocks, block_bytes=self._block_bytes, blocks_coming=coming
        )

    def has_copy(self, request_id: str) -> bool:
        """Whether a parked request's KV is in host memory."""
        side = _side(self)
        return side is not None and request_id in side.parked_copies

    # vLLM's hooks

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
        if not self.parked:
            return bool(super().has_finished_requests())
        if self.finished_req_ids:
            return True
        running, waiting = self.get_request_counts()
        return bool(len(self.requests) > running + waiting + len(self.parked))

    def get_num_unfinished_requests(self) -> int:
        """Counts whom the planner is to bring back: it is asked only while the engine steps."""
        unfinished: int = super().get_num_unfinished_requests()
        if self.parked_by_plan and self._pause_state is PauseState.UNPAUSED:
            unfinished += len(self.parked_by_plan)
        return unfinished

    def engine_id_of(self, leg: str) -> str | None:
        """The engine's id of a request, running or parked, by the id it was submitted under."""
        return next((each for each in self.requests if leg_id(each) == leg), None)

    def _sweep(self) -> None:
        if self.parked:
            ended = [key for key, request in self.parked.items() if request.is_finished()]
            for key in ended:
                del self.parked[key]
                self.parked_by_plan.discard(key)


def _block_bytes(config: Any) -> int:
    """Of one KV block over all layers, in one worker process."""
    total = 0
    for group in config.kv_cache_groups:
        spec = group.kv_cache_spec
        is_whole = hasattr(spec, "kv_cache_specs")  # one for layers that differ in size
        total += spec.page_size_bytes * (1 if is_whole else len(group.layer_names))
    return total


def _side(scheduler: Any) -> Any | None:
    """The scheduler side of a connector that keeps copies; None where there is none."""
    side = getattr(scheduler.connector, "connector_scheduler", None)
    return side if hasattr(side, "parked_copies") else None


def _copies(scheduler: Any) -> Any:
    side = _side(scheduler)
    if side is None:
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
    """What is parked, by whomever: `tokens` so far, and `in_flight_tokens` of iterations under way,
    some of which may come yet."""
    return {
        leg_id(key): {
            "tokens": request.num_tokens,
            "in_flight_tokens": request.num_in_flight_tokens,
        }
        for key, request in core.scheduler.parked.items()
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
