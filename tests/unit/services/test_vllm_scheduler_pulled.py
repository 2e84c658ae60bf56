"""Requests whose KV comes from elsewhere, as the planner sees them and as vLLM is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from readahead.core.planning.policy import Choice, EngineLimits, EngineView
from readahead.services.engine.vllm_scheduler_orders import orders_for
from readahead.services.engine.vllm_scheduler_sequences import Sequences

BLOCK = 16
LIMITS = EngineLimits(kv_blocks=100, block_tokens=BLOCK, requests_max=64, batch_tokens_max=2048)


@dataclass(slots=True, eq=False)
class FakeRequest:
    """The parts of vLLM's request that are read."""

    request_id: str
    num_prompt_tokens: int
    num_computed_tokens: int = 0
    _output_token_ids: list[int] = field(default_factory=list)
    num_output_placeholders: int = 0
    max_tokens: int = 100
    sampling_params: Any = None
    kv_transfer_params: dict[str, Any] | None = None

    @property
    def _all_token_ids(self) -> list[int]:
        return [0] * self.num_prompt_tokens + self._output_token_ids


def known(*requests: FakeRequest) -> Sequences:
    sequences = Sequences(block_tokens=BLOCK, lag_s=0.0)
    for request in requests:
        sequences.add(request, now=0.0, cached_tokens=0)
    return sequences


def test_prompt_in_part_leaves_the_tokens_of_those_whose_kv_has_come() -> None:
    """vLLM serves it first, and would give it theirs."""
    requests = FakeRequest("reader", 20, 20, [0]), FakeRequest("prompt", 400, 100)
    reader, prompt = known(*requests).running(requests, 1.0)
    view = EngineView(
        limits=LIMITS, blocks_free=50, running=[reader, prompt], waiting=[], pulling=0
    )
    choice = Choice(entries=[(reader, 1), (prompt, 64)])
    assert orders_for(choice, view).chunk_tokens == 0
    assert orders_for(choice, replace(view, pulling=1)).chunk_tokens == 64


def test_one_whose_copy_is_gone_when_he_resumes_is_computed_again() -> None:
    """Another engine has pulled it, and then he stayed after all."""
    request = FakeRequest("a", 20, 0, [0] * 5)
    sequences = known(request)
    for is_copied in (True, False):
        sequences.moved(request, 0.5, is_copied=is_copied)
        [sequence] = sequences.waiting([request], 1.0)
        assert sequence.is_pulled == is_copied
