"""Legs that come from another engine: which can, what vLLM is asked for, how their text goes on.

To vLLM the output so far is a part of the prompt, so it restarts all that it counts from there.
What depends on that is set right here, or is a reason not to move: stop strings and characters that
span the move are found by a detokenizer of vLLM's that has seen the whole output.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import FinishReason, Leg
from readahead.services.engine.engine import LegEnd, LegOutput, LegRequest, Sampling


def check_movable(request: LegRequest) -> None:
    """Whether another engine could go on with a leg so that nobody notices.

    Raises:
        ReadaheadError: UNSUPPORTED; says why not. REQUEST_NOT_FOUND; it generates no text.
    """
    sampling = request.sampling
    if request.leg is Leg.PREFILL:
        raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "A prefill leg does not generate.")
    if sampling.presence_penalty or sampling.frequency_penalty:
        raise ReadaheadError(
            Reason.UNSUPPORTED,
            "Presence and frequency penalties count output tokens, and another engine would take "
            "those so far for its prompt.",
        )
    if sampling.seed is not None and sampling.temperature:
        raise ReadaheadError(
            Reason.UNSUPPORTED, "The state of a seeded generator does not leave its engine."
        )


def rest_of(request: LegRequest) -> Sampling:
    """What vLLM is asked for: the output that is left, without the stop strings."""
    made = len(request.output_token_ids)
    sampling = request.sampling
    if made >= sampling.max_tokens:
        raise ReadaheadError(
            Reason.INVALID_REQUEST, "Its output is whole.", parameter="output_token_ids"
        )
    return replace(
        sampling,
        max_tokens=sampling.max_tokens - made,
        min_tokens=max(0, sampling.min_tokens - made),
        stop=(),
    )


async def moved_text(tokenizer: Any, request: LegRequest) -> MovedText:
    """For a task of its own: the engine can begin meanwhile."""
    return MovedText(tokenizer, request)


class MovedText:
    """The text of one leg that has come from another engine."""

    def __init__(self, tokenizer: Any, request: LegRequest) -> None:
        """Reads the output so far, whose text the other engine has told."""
        sampling = request.sampling
        params = SamplingParams(
            max_tokens=sampling.max_tokens,
            min_tokens=sampling.min_tokens,
            stop=list(sampling.stop),
        )
        whole = EngineCoreRequest(
            request_id=request.key[0],
            prompt_token_ids=list(request.prompt_token_ids),
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        self._detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, whole)
        self._detokenizer.update(list(request.output_token_ids), False)
        self._detokenizer.get_next_output_text(finished=False, delta=True)

    def told(self, output: LegOutput, *, ends_on_token: bool) -> LegOutput:
        """An output with its text, which may end it.

        Args:
            output: as vLLM gave it, without text.
            ends_on_token: its last token is one that ends the text and is not part of it.
        """
        token_ids, end = list(output.token_ids), output.end
        before = self._detokenizer.num_output_tokens()
        if self._detokenizer.update(token_ids, ends_on_token) is not None:
            token_ids = token_ids[: self._detokenizer.num_output_tokens() - before]
            end = LegEnd(finish_reason=FinishReason.STOP)
        text = self._detokenizer.get_next_output_text(finished=end is not None, delta=True)
        return replace(output, token_ids=token_ids, text=text, end=end)
