"""vLLM's scheduler, told by the planner of `core/planning` what the next iteration holds.

Loaded by vLLM by name (`scheduler_cls`) in the engine core's process. It copies nothing of vLLM's
`schedule`: it sets the lists and the budget that one works through, calls it, and puts back what it
set aside. Whenever there is no plan to carry out, vLLM's own order is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.engine.core import EngineCore
from vllm.v1.request import RequestStatus

from readahead.core.errors import ReadaheadError
from readahead.core.planning.policy import BatchPolicy, EngineLimits, EngineView
from readahead.runtime.clock import monotonic_s
from readahead.services.engine.vllm_parking import Parking
from readahead.services.engine.vllm_profiler import LOG_KEY, IterationLog, work_of
from readahead.services.engine.vllm_scheduler_belief import Belief, latency_of
from readahead.services.engine.vllm_scheduler_counts import Counts
from readahead.services.engine.vllm_scheduler_names import (
    POLICY_NAMES,
    STOCK,
    make_engine_policy,
)
from readahead.services.engine.vllm_scheduler_orders import Orders, orders_for
from readahead.services.engine.vllm_scheduler_sequences import Sequences
from readahead.services.engine.vllm_slack import BOARD_VARIABLE, SlackView

CONFIG_KEY = "readahead_scheduler"
"""In vLLM's additional_config: policy, knobs, planner_budget_s, delivery_lag_s, latency_profile."""
KEPT_MAX = 32
"""Iterations for which a plan may go unasked. Readers' clocks are not brought up to date then, and
take the tokens meanwhile for evenly spaced."""
OVERRUN_SLACK_S = 1.0
"""Where a plan came too late, those come back whom it has parked and who have less left to read."""


class ReadaheadScheduler(Parking, AsyncScheduler):  # type: ignore[misc]  # vLLM is untyped here
    """Runs with asynchronous scheduling off as well as on: without it nothing is in flight."""

    running: list[Any]
    max_num_scheduled_tokens: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.scheduler_config.policy == "fcfs", "waiting must be a list"
        additional: Mapping[str, Any] = self.vllm_config.additional_config
        config: Mapping[str, Any] = additional.get(CONFIG_KEY) or {}
        self._planner_budget_s = float(config.get("planner_budget_s", 0.002))
        self._sequences = Sequences(
            block_tokens=self.block_size, lag_s=float(config.get("delivery_lag_s", 0.0))
        )
        self._belief = Belief(latency_of(config.get("latency_profile", "")))
        self._limits = self._make_limits()
        self._policy: BatchPolicy | None = None
        self._policy_index = 0
        self._is_stock_next = False
        self._kept_left = self._kept_running = 0
        self.count = Counts()
        """As of the last iteration."""
        self.last_error = ""
        """Of the planner; "" if it never failed."""
        board = os.environ.get(BOARD_VARIABLE)
        self._board = SlackView(board) if board else None
        log = additional.get(LOG_KEY)
        self._log = IterationLog(log) if log else None
        self.select(config.get("policy", STOCK), config.get("knobs") or {})

    # Commands, between iterations

    def select(self, name: str, knobs: Mapping[str, float]) -> None:
        """Goes on under another policy, from the next iteration on. Whom the last one has parked
        comes back: the next one may not know of parking.

        Raises:
            ValueError: there is no such policy or knob; nothing has changed.
        """
        self._policy = make_engine_policy(name, knobs)
        self._policy_index = POLICY_NAMES.index(name)
        self._kept_left = 0
        self._bring_back(self.parked_by_plan)

    def put_away(self, request: Any, *, is_copied: bool) -> int:
        """A running request is parked, by a plan or by a command."""
        tokens = super().put_away(request, is_copied=is_copied)
        self._sequences.moved(request, monotonic_s(), is_copied=is_copied)
        return tokens

    def bring_back(self, request: Any) -> None:
        """A parked request waits again."""
        self._kept_left = 0
        is_copied = self.has_copy(request.request_id)
        self._sequences.moved(request, monotonic_s(), is_copied=is_copied)
        super().bring_back(request)

    # vLLM's hooks

    def add_request(self, request: Any) -> None:
        """A request arrives."""
        if request.request_id not in self.requests:
            cached_tokens = 0
            if self._policy is not None and request.num_prompt_tokens > self.block_size:
                cached_tokens = self.kv_cache_manager.get_computed_blocks(request)[1]
            self._sequences.add(request, now=monotonic_s(), cached_tokens=cached_tokens)
        self._kept_left = 0
        super().add_request(request)

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """A request has ended, on whichever way."""
        self._sequences.remove(request)
        self._kept_left = 0
        return super()._free_request(request, *args, **kwargs)

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """A running request loses its KV, by us or by vLLM."""
        self._sequences.preempted(request)
        super()._preempt_request(request, *args, **kwargs)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """The next iteration."""
        began_at = monotonic_s()
        orders = None if self._policy is None else self._orders(began_at)
        count = self.count
        count.iterations += 1
        count.last_held = 0
        if orders is None:
            output = super().schedule(*args, **kwargs)
        else:
            output = self._carry_out(orders, args, kwargs)
        tokens = output.total_num_scheduled_tokens
        count.last_batch_tokens = tokens
        if tokens:
            is_compared = self._belief.is_due()
            work = work_of(self, output) if is_compared or self._log is not None else None
            self._belief.began(work if is_compared else None, began_at)
            if self._log is not None and work is not None:
                self._log.began(work, at_s=began_at)
        if self._board is not None:
            count.parked = len(self.parked)
            self._board.tell(count.words(self._policy_index))
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """An iteration is over."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        if scheduler_output.total_num_scheduled_tokens:
            now = monotonic_s()
            if self._log is not None:
                self._log.ended(at_s=now)
            if self._belief.ended(now):
                self._limits = self._make_limits()
        return outputs

    # Planning

    def _orders(self, now: float) -> Orders | None:
        """What to have vLLM do; None for whatever it does by itself."""
        count = self.count
        if self._kept_left and self._is_as_planned():
            self._kept_left -= 1
            count.kept += 1
            return None
        self._kept_left = 0
        if self._pause_state is not PauseState.UNPAUSED:
            return None
        if not (self.running or self.waiting or self.parked_by_plan):
            return None
        if self._is_stock_next:
            self._is_stock_next = False
            count.yielded += 1
            return None
        try:
            orders = self._plan(now)
        except Exception as error:  # a planner's bug must not end the engine
            count.failures += 1
            self.last_error = repr(error)
            self._bring_back(self.parked_by_plan)
            return None
        count.last_planner_s = monotonic_s() - now
        count.planner_s += count.last_planner_s
        if count.last_planner_s > self._planner_budget_s:
            count.overruns += 1
            self._bring_back_poor(now)
            return None
        if orders.is_empty:
            count.yielded += 1
            return None
        count.planned += 1
        if not orders.is_plain:
            return orders
        self._kept_left, self._kept_running = min(orders.holds_for - 1, KEPT_MAX), len(self.running)
        return None

    def _is_as_planned(self) -> bool:
        """Whether those who decoded still do, nobody can be let in, and all can have blocks."""
        return (
            len(self.running) == self._kept_running
            and (not self.waiting or self._kept_running >= self.max_num_active_reqs)
            and not self.kv_holding_waiting
            and not self.parked_by_plan
            and self.kv_cache_manager.block_pool.get_num_free_blocks() >= self._kept_running
        )

    def _plan(self, now: float) -> Orders:
        assert self._policy is not None
        if self._board is not None:
            self._sequences.learn(self._board.changed())
        manager = self.kv_cache_manager
        waiting = [request for request in self.waiting if _is_ready(request)]
        view = EngineView(
            limits=self._limits,
            blocks_free=manager.block_pool.get_num_free_blocks() - manager.watermark_blocks,
            running=self._sequences.running(self.running, now),
            waiting=self._sequences.waiting(waiting, now),
            pulling=len(self.kv_holding_waiting),
            parked=self._sequences.waiting(self._parked_by_plan(), now),
            host=self.host_room(),
        )
        choice = self._policy.choose(view, now)
        if self._board is not None:
            self._board.judge(self._sequences.judged())
        return orders_for(choice, view)

    def _parked_by_plan(self) -> list[Any]:
        """Parked requests that can come back at once."""
        parked = [self.parked[key] for key in self.parked_by_plan]
        return [request for request in parked if _is_ready(request)]

    def _make_limits(self) -> EngineLimits:
        return EngineLimits(
            kv_blocks=int(self.cache_config.num_gpu_blocks) - 1,  # the null block is nobody's
            block_tokens=self.block_size,
            requests_max=self.max_num_active_reqs,
            batch_tokens_max=self.max_num_scheduled_tokens,
            latency=self._belief.model,
        )

    # Carrying out

    def _carry_out(self, orders: Orders, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Has vLLM schedule just that, and puts back what was set aside."""
        for request in orders.give_up:
            self._give_up(request)
        for request, is_copied in orders.park:
            self._park_by_plan(request, is_copied=is_copied)
        self._bring_back([request.request_id for request in reversed(orders.resume)])
        running, waiting = self.running, list(self.waiting)
        held = len(running) - len(orders.run)
        pulled = len(self.kv_holding_waiting)
        settings, tokens_max = self.scheduler_config, self.max_num_scheduled_tokens
        chunk_tokens = settings.long_prefill_token_threshold
        self.running = list(orders.run)
        shown = orders.admit + [each for each in waiting if not _is_ready(each)]
        self._set_waiting(shown)
        self.max_num_active_reqs -= held
        self.max_num_scheduled_tokens = min(tokens_max, orders.tokens + self._spare_tokens(orders))
        if orders.chunk_tokens:
            # vLLM asserts that a first iteration that it has filled up with drafts is not cut.
            threshold = max(orders.chunk_tokens, 1 + self.num_spec_tokens)
            settings.long_prefill_token_threshold = threshold
        try:
            output = super().schedule(*args, **kwargs)
        finally:
            settings.long_prefill_token_threshold = chunk_tokens
            self.max_num_scheduled_tokens = tokens_max
            self.max_num_active_reqs += held
            stay = sum([request.status is RequestStatus.RUNNING for request in orders.run])
            let_in = self.running[stay:]
            self.running = [r for r in running if r.status is RequestStatus.RUNNING] + let_in
            self._restore_waiting(waiting, set(shown))
        self.count.held_requests += held
        self.count.last_held = held
        is_refused = orders.admit and not let_in and len(self.kv_holding_waiting) <= pulled
        if held and (is_refused or not output.total_num_scheduled_tokens):
            self._is_stock_next = True  # who sat out for nothing is served next
        return output

    def _spare_tokens(self, orders: Orders) -> int:
        """What the budget has beyond the plan: a token for each whose KV has come, and drafts.

        vLLM fills the first iteration of a request that lacks one token up with as many drafts as
        there can be. Where those are beyond the budget, it lets in neither this one nor the next.
        """
        pulled, most = len(self.kv_holding_waiting), int(self.num_spec_tokens)
        if not most:
            return pulled
        drafts = sum([len(request.spec_token_ids) for request in orders.run])
        return pulled + drafts + most * (pulled + len(orders.admit))

    def _give_up(self, request: Any) -> None:
        """Takes a running request's KV; it waits in front, to be computed again."""
        if request.status is not RequestStatus.RUNNING:
            return
        if not self._request_blocks_can_be_freed(request):
            return  # vLLM then waits for the iteration under way, and so do we
        self.running.remove(request)
        self._preempt_request(request, monotonic_s(), drop_stale_output=self.requires_kv_delivery)
        self.prev_step_scheduled_req_ids.discard(request.request_id)
        self.count.preemptions += 1

    def _park_by_plan(self, request: Any, *, is_copied: bool) -> None:
        try:
            self.put_away(request, is_copied=is_copied)
        except ReadaheadError:
            self.count.parks_refused += 1  # it sits out this iteration, and keeps its blocks
            return
        self.parked_by_plan.add(request.request_id)
        self.count.parks += 1

    def _bring_back(self, request_ids: Iterable[str]) -> None:
        self.count.resumes += sum([self.resume(each) for each in list(request_ids)])

    def _bring_back_poor(self, now: float) -> None:
        """Those parked by plans who cannot wait long for the next one; all, if nobody else is."""
        requests = self._parked_by_plan()
        if self.running or self.waiting:
            sequences = self._sequences.waiting(requests, now)
            requests = [s.request for s in sequences if s.slack_s(now) < OVERRUN_SLACK_S]
        self._bring_back([request.request_id for request in requests])

    def _set_waiting(self, requests: list[Any]) -> None:
        self.waiting.clear()
        self.waiting.extend(requests)

    def _restore_waiting(self, before: list[Any], shown: set[Any]) -> None:
        """In the order of arrival: those that were not shown, and those that were not taken."""
        left = list(self.waiting)
        still = set(left)
        known = set(before)
        self._set_waiting(
            [each for each in left if each not in known]
            + [each for each in before if each in still or each not in shown]
        )


def _is_ready(request: Any) -> bool:
    """Whether vLLM would let a waiting request in if there is room."""
    status = request.status
    if status is not RequestStatus.WAITING and status is not RequestStatus.PREEMPTED:
        return False
    return not request.num_stale_output_tokens or request.drop_stale_output


# Utility calls: run in the engine core between two iterations.


def _select(core: Any, name: str, knobs: dict[str, float]) -> str:
    """ "" where that worked, else why not."""
    try:
        core.scheduler.select(name, knobs)
    except ValueError as error:
        return str(error)
    return ""


def _planner_error(core: Any) -> str:
    error: str = core.scheduler.last_error
    return error


def _moves(core: Any) -> dict[str, int]:
    """What plans have moved, and how many they have parked now."""
    return {**core.scheduler.count.moves(), "parked": len(core.scheduler.parked_by_plan)}


EngineCore.readahead_moves = _moves
EngineCore.readahead_policy = _select
EngineCore.readahead_planner_error = _planner_error
