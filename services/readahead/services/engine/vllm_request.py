"""Between our legs and vLLM's requests: parameters in, outputs and errors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm.exceptions import VLLMClientError
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import FinishReason, Leg
from readahead.services.engine import vllm_handover, vllm_moved
from readahead.services.engine.engine import (
    EngineDescription,
    LegEnd,
    LegOutput,
    LegRequest,
    Sampling,
)
from readahead.services.engine.vllm_scheduler_sequences import LEG_KEY

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "repetition": FinishReason.STOP,
}

ENGINE_ERRORS = (VLLMClientError, EngineDeadError, EngineGenerateError)
"""What `AsyncLLM.generate` raises; `translated` says what each means."""


def sampling_params(
    request: LegRequest, description: EngineDescription, *, facts: Mapping[str, Any]
) -> SamplingParams:
    """vLLM's parameters for a leg; `facts` are for our scheduler.

    Raises:
        ReadaheadError: INVALID_REQUEST; a parameter is out of range, or the handover does not fit.
    """
    try:
        return _sampling_params(request, description, {LEG_KEY: dict(facts)})
    except (VLLMClientError, ValueError, TypeError) as error:
        raise _invalid(error) from error


def _sampling_params(
    request: LegRequest, description: EngineDescription, extra_args: dict[str, Any]
) -> SamplingParams:
    if request.leg is Leg.PREFILL:
        # The one token is thrown away: no detokenising, no sampling state.
        extra_args["kv_transfer_params"] = dict(vllm_handover.PREFILL_PARAMS)
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=extra_args,
        )
    if request.leg is Leg.DECODE:
        extra_args["kv_transfer_params"] = vllm_handover.decode(
            request.handover,
            prompt_tokens=len(request.prompt_token_ids) + len(request.output_token_ids),
            block_tokens=description.block_tokens,
        )
    if not request.output_token_ids:
        return _generating_params(request.sampling, extra_args)
    params = _generating_params(vllm_moved.rest_of(request), extra_args)
    params.detokenize = False
    return params


def _generating_params(sampling: Sampling, extra_args: dict[str, Any]) -> SamplingParams:
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop=list(sampling.stop),
        ignore_eos=sampling.ignore_eos,
        output_kind=RequestOutputKind.DELTA,
        extra_args=extra_args,
    )


def check_prompt(
    request: LegRequest, description: EngineDescription, *, vocabulary_tokens: int
) -> None:
    """Refuses prompts that vLLM would refuse less clearly, or not at all.

    A token id beyond the embedding table kills the engine core. vLLM accepts ids up to the larger
    of the tokenizer's and the model's vocabulary.

    Raises:
        ReadaheadError: INVALID_REQUEST or CONTEXT_TOO_LONG.
    """
    ids = [*request.prompt_token_ids, *request.output_token_ids]
    if not request.prompt_token_ids:
        raise ReadaheadError(
            Reason.INVALID_REQUEST, "The prompt is empty.", parameter="prompt_token_ids"
        )
    if min(ids) < 0 or max(ids) >= vocabulary_tokens:
        raise ReadaheadError(
            Reason.INVALID_REQUEST,
            f"Each token id must be in [0, {vocabulary_tokens - 1}].",
            parameter="prompt_token_ids",
        )
    if len(ids) >= description.context_tokens_max:
        raise ReadaheadError(
            Reason.CONTEXT_TOO_LONG,
            f"The prompt's {len(ids)} tokens leave no room for output in a context of "
            f"{description.context_tokens_max} tokens.",
            parameter="prompt_token_ids",
            metadata={"context_tokens_max": str(description.context_tokens_max)},
        )


def leg_output(leg: Leg, output: Any, *, is_first: bool) -> LegOutput:
    """Our news of a leg for one of vLLM's `RequestOutput`s."""
    completion = output.outputs[0]
    end = _leg_end(leg, output) if output.finished else None
    wait_s = first_token_s = None
    if is_first and completion.token_ids:
        # The core's clock. `scheduled_ts` is set when the request first gets into a batch; one
        # whose KV cache is being pulled is not in one.
        times = output.metrics
        wait_s = times.scheduled_ts - times.queued_ts
        first_token_s = times.first_token_ts - times.scheduled_ts
    if leg is Leg.PREFILL:
        return LegOutput(end=end, wait_s=wait_s, first_token_s=first_token_s)
    return LegOutput(
        token_ids=completion.token_ids,
        text=completion.text,
        end=end,
        wait_s=wait_s,
        first_token_s=first_token_s,
    )


def _leg_end(leg: Leg, output: Any) -> LegEnd:
    vllm_reason = output.outputs[0].finish_reason
    reason = _FINISH_REASONS.get(vllm_reason)
    if reason is None:
        return LegEnd(
            error_reason=Reason.ENGINE_FAILED,
            error_message=f"The engine ended the request: {vllm_reason}.",
        )
    if leg is not Leg.PREFILL:
        return LegEnd(finish_reason=reason)
    if not output.kv_transfer_params:
        return LegEnd(
            error_reason=Reason.ENGINE_FAILED,
            error_message="The engine kept no KV cache for the handover.",
        )
    return LegEnd(finish_reason=reason, handover=vllm_handover.encode(output.kv_transfer_params))


def translated(error: Exception, *, is_engine_dead: bool) -> ReadaheadError:
    """What one of `ENGINE_ERRORS` means to a caller."""
    if is_engine_dead or isinstance(error, EngineDeadError):
        return ReadaheadError(Reason.ENGINE_FAILED, "The engine is dead.")
    if not isinstance(error, EngineGenerateError):
        return _invalid(error)
    cause = error.__cause__
    if isinstance(cause, ValueError | TypeError):  # from vLLM's checks of a request
        return _invalid(cause)
    return ReadaheadError(Reason.ENGINE_FAILED, f"The engine failed the request: {cause!r}")


def _invalid(error: Exception) -> ReadaheadError:
    parameter = getattr(error, "parameter", None)
    return ReadaheadError(Reason.INVALID_REQUEST, str(error), parameter=parameter)
