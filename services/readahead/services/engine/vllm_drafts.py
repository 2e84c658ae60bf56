"""The scheduler of an engine that speculates: it cuts drafts that are not worth verifying.

vLLM drafts and verifies. What is cut was only guessed, so greedy text is the same whatever is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.v1.engine.core import EngineCore

from readahead.core.latency.iteration import IterationWork
from readahead.core.planning.drafts import DraftPlanner, Iteration
from readahead.services.engine.vllm_scheduler import ReadaheadScheduler
from readahead.services.engine.vllm_scheduler_sequences import LEG_KEY, PACE_TOK_S

DRAFTS_KEY = "readahead_drafts"
"""In vLLM's additional_config: `is_adaptive`."""


@dataclass(slots=True, kw_only=True)
class DraftCounts:
    """Sums since the engine's start."""

    offered: int = 0
    """Drafted tokens that were there to be verified."""
    verified: int = 0
    accepted: int = 0
    failures: int = 0
    """Iterations in which the planner raised; nothing was cut in them."""


class DraftingScheduler(ReadaheadScheduler):
    """Cuts each request's drafts before the policy is asked for the iteration."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.vllm_config.additional_config.get(DRAFTS_KEY) or {}
        is_adaptive = bool(self.num_spec_tokens and config.get("is_adaptive"))
        self.draft_counts = DraftCounts()
        self.draft_planner = (
            DraftPlanner(draft_tokens_max=self.num_spec_tokens) if is_adaptive else None
        )
        """None: each draft is verified whole."""
        self._draft_tokens_wanted: int = self.num_spec_tokens

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """The next iteration, drafts cut first."""
        if self.num_spec_tokens:
            self._drop_lost_drafts()
            if self.draft_planner is not None:
                try:
                    self._cut(self.draft_planner)
                except Exception:  # a planner's bug must not end the engine
                    self.draft_counts.failures += 1
                    self._draft_tokens_wanted = self.num_spec_tokens
        return super().schedule(*args, **kwargs)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """An iteration is over: what was accepted of its drafts?"""
        drafts = scheduler_output.scheduled_spec_decode_tokens
        if drafts:
            self._observe(drafts, model_runner_output)
        return super().update_from_output(scheduler_output, model_runner_output)

    def _update_after_schedule(self, scheduler_output: Any) -> None:
        """The engine drafts no more than anybody wants. At least one token: a drafting model that
        skips an iteration lacks the KV of its tokens ever after."""
        wanted = max(1, self._draft_tokens_wanted)
        if wanted < scheduler_output.num_spec_tokens_to_schedule:
            scheduler_output.num_spec_tokens_to_schedule = wanted
        super()._update_after_schedule(scheduler_output)

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """A request has ended."""
        if self.draft_planner is not None:
            self.draft_planner.forget(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    def _drop_lost_drafts(self) -> None:
        """With asynchronous scheduling drafts stay in the worker, and only until the next
        iteration. Who sat that out has placeholders of drafts that are gone; they would be
        verified in vain, and counted as refused."""
        if not self.scheduler_config.async_scheduling or self.use_v2_model_runner:
            return
        before = self.prev_step_scheduled_req_ids
        for request in self.running:
            if request.spec_token_ids and request.request_id not in before:
                request.spec_token_ids = []

    def _cut(self, planner: DraftPlanner) -> None:
        drafting = [request for request in self.running if request.spec_token_ids]
        if not drafting:
            self._draft_tokens_wanted = self.num_spec_tokens
            return
        readers = [(each.request_id, _reader_token_s(each)) for each in drafting]
        lengths = planner.lengths(readers, self._iteration(drafting))
        for request, length in zip(drafting, lengths, strict=True):
            drafted = request.spec_token_ids
            self.draft_counts.offered += len(drafted)
            if length < len(drafted):
                request.spec_token_ids = drafted[:length]  # the list may be shared: a new one
        self._draft_tokens_wanted = max(lengths)

    def _iteration(self, drafting: list[Any]) -> Iteration:
        """What is known before vLLM fills the iteration: those who decode."""
        running = len(self.running)
        computed = sum([request.num_computed_tokens for request in drafting])
        return Iteration(
            work=IterationWork(
                tokens=running, requests=running, past_tokens=computed, prefill_pairs=0
            ),
            tokens_max=self.max_num_scheduled_tokens - running,
            latency=self._belief.model,
            prompts_wait=bool(self.waiting) or any(r.is_prefill_chunk for r in self.running),
        )

    def _observe(self, drafts: dict[str, list[int]], output: Any) -> None:
        counts, planner = self.draft_counts, self.draft_planner
        sampled, index_of = output.sampled_token_ids, output.req_id_to_index
        for request_id, drafted in drafts.items():
            request = self.requests.get(request_id)
            index = index_of.get(request_id)
            if request is None or index is None or not sampled or not sampled[index]:
                continue
            if not request.num_output_tokens:
                continue  # vLLM fills a first iteration up with drafts that nobody made
            accepted = min(len(sampled[index]) - 1, len(drafted))
            counts.verified += len(drafted)
            counts.accepted += accepted
            if planner is not None and not request.is_finished():
                planner.observe(request_id, drafted=len(drafted), accepted=accepted)


def _reader_token_s(request: Any) -> float:
    """Seconds per token that a request's reader bears: at the pace that its leg came with."""
    extra = getattr(request.sampling_params, "extra_args", None) or {}
    facts = extra.get(LEG_KEY) or {}
    return 1 / float(facts.get("pace_tok_s", PACE_TOK_S))


def _draft_counts(core: Any) -> dict[str, int]:
    """What was drafted so far."""
    counts = core.scheduler.draft_counts
    return {name: getattr(counts, name) for name in DraftCounts.__slots__}


EngineCore.readahead_drafts = _draft_counts
