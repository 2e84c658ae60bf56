"""Protobuf in, values out, and back: what the router says to workers and hears from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.latency.iteration import Curve
from readahead.core.promise import PromiseClock, Verdict
from readahead.core.request import FinishReason, Incarnation, Leg, RequestId, WorkerId
from readahead.router.outbox import LegKey
from readahead.router.reader_mail import ReaderNote
from readahead.router.sessions import Sampling
from readahead.v1 import sampling_pb2, worker_service_pb2

_ROLES = {
    worker_service_pb2.ROLE_PREFILL: Role.PREFILL,
    worker_service_pb2.ROLE_DECODE: Role.DECODE,
}
_LEGS = {
    Leg.PREFILL: worker_service_pb2.LEG_PREFILL,
    Leg.DECODE: worker_service_pb2.LEG_DECODE,
    Leg.WHOLE: worker_service_pb2.LEG_WHOLE,
}
_FINISHES: Mapping[int, FinishReason] = {
    sampling_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    sampling_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}
_FINISH_NUMBERS = {
    FinishReason.STOP: sampling_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: sampling_pb2.FINISH_REASON_LENGTH,
}
_VERDICTS: Mapping[int, Verdict] = {
    worker_service_pb2.VERDICT_ACCEPTED: Verdict.ACCEPTED,
    worker_service_pb2.VERDICT_BEST_EFFORT: Verdict.BEST_EFFORT,
}
_VERDICT_NUMBERS = {
    Verdict.NEW: worker_service_pb2.VERDICT_UNSPECIFIED,
    Verdict.ACCEPTED: worker_service_pb2.VERDICT_ACCEPTED,
    Verdict.BEST_EFFORT: worker_service_pb2.VERDICT_BEST_EFFORT,
}
_UINT32_MAX = 2**32 - 1
_REASONS = {reason.value: reason for reason in Reason}


def description_from_proto(message: worker_service_pb2.DescribeResponse) -> WorkerDescription:
    """What a worker said of itself.

    Raises:
        ReadaheadError: ENGINE_FAILED when it makes no sense.
    """
    role = _ROLES.get(message.role)
    if role is None or not message.worker_id or not message.incarnation:
        raise ReadaheadError(Reason.ENGINE_FAILED, "the worker does not say who or what it is")
    return WorkerDescription(
        worker_id=WorkerId(message.worker_id),
        incarnation=Incarnation(message.incarnation),
        role=role,
        engine=message.engine,
        model=message.model,
        context_tokens_max=message.context_tokens_max,
        block_tokens=message.block_tokens,
        kv_blocks=message.kv_blocks,
        requests_max=message.requests_max,
        prefill_credits=message.prefill_credits,
        handover_lease_s=message.handover_lease_ms / 1000,
        kv_transport=message.kv_transport,
        zero_load=_zero_load(message),
    )


def _zero_load(message: worker_service_pb2.DescribeResponse) -> Curve | None:
    points = message.zero_load_ttft
    if not points:
        return None
    try:
        return Curve(
            sizes=tuple(point.prompt_tokens for point in points),
            values=tuple(point.seconds for point in points),
        )
    except ValueError as error:
        raise ReadaheadError(Reason.ENGINE_FAILED, f"zero_load_ttft: {error}") from error


def load_from_proto(message: worker_service_pb2.WorkerLoad) -> WorkerLoad:
    """An engine's load."""
    return WorkerLoad(
        running=message.running, waiting=message.waiting, kv_blocks_free=message.kv_blocks_free
    )


def finish_from_proto(number: int) -> FinishReason | None:
    """How a leg ended, or None if it did not end well."""
    return _FINISHES.get(number)


def finish_to_proto(reason: FinishReason) -> sampling_pb2.FinishReason.ValueType:
    """The number of a good ending."""
    return _FINISH_NUMBERS[reason]


def error_from_proto(end: worker_service_pb2.LegEnd) -> tuple[Reason, str]:
    """Why a leg ended badly. A cancel that the router did not ask for counts as a lost worker."""
    if end.reason == sampling_pb2.FINISH_REASON_CANCELLED:
        return Reason.WORKER_LOST, "the worker gave the leg up"
    reason = _REASONS.get(end.error_reason, Reason.ENGINE_FAILED)
    if reason is Reason.CANCELLED:
        reason = Reason.WORKER_LOST
    return reason, end.error_message or "the worker gave no reason"


def sampling_to_proto(sampling: Sampling, *, max_tokens: int) -> sampling_pb2.SamplingParams:
    """Every field set, so that a worker guesses nothing."""
    return sampling_pb2.SamplingParams(
        max_tokens=max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop=sampling.stop,
        ignore_eos=sampling.ignore_eos,
        min_tokens=sampling.min_tokens,
    )


def name_reader(
    message: worker_service_pb2.SubmitRequest, *, pace_tok_s: float, age_s: float
) -> None:
    """Says how fast the leg's user reads, and how long ago he sent the request.

    Of a leg that moves, `age_s` says when his next token is due: one token's time after.
    """
    message.pace_tok_s = pace_tok_s
    age_ns = round(age_s * 1e9)
    message.age_ns = age_ns if message.output_token_ids else max(0, age_ns)


def name_promise(
    message: worker_service_pb2.SubmitRequest,
    clock: PromiseClock | None,
    *,
    verdict: Verdict,
    now: float,
) -> None:
    """Says what the leg's user is still promised, if anything, and what was decided about him.

    Comes after `name_reader`: what is promised counts from the arrival that this says.
    """
    if clock is not None:
        promise = clock.rest(arrived_at=now - message.age_ns / 1e9)
        message.promise.first_token_s = promise.first_token_s
        for stage in promise.stages:
            message.promise.stages.add(
                token_s=stage.token_s, tokens=stage.tokens, until_token_id=stage.until_token_id
            )
    if message.leg == worker_service_pb2.LEG_DECODE:
        message.verdict = _VERDICT_NUMBERS[verdict]


def verdict_from_proto(number: int) -> Verdict | None:
    """What a planner has decided; None: nothing new."""
    return _VERDICTS.get(number)


def readers_to_proto(
    notes: Sequence[tuple[LegKey, ReaderNote]], *, now: float
) -> worker_service_pb2.UpdateReadersRequest:
    """What is known of readers, with its age."""
    message = worker_service_pb2.UpdateReadersRequest()
    for key, note in notes:
        read = note.tokens_read
        message.readers.add(
            request_id=key.request_id,
            attempt=key.attempt,
            pace_tok_s=note.pace_tok_s,
            # What callers say has no bound.
            tokens_read=None if read is None else min(read, _UINT32_MAX),
            age_ns=max(0, round((now - note.at) * 1e9)),
        )
    return message


def submit_to_proto(
    request_id: RequestId,
    *,
    attempt: int,
    leg: Leg,
    prompt_token_ids: Sequence[int],
    sampling: sampling_pb2.SamplingParams,
    handover: bytes,
) -> worker_service_pb2.SubmitRequest:
    """One leg to run, but for the `router_id`, which its link knows.

    A prefill leg makes one token, which is not delivered, so nothing may keep it from ending
    there: no stop strings, no least length.
    """
    message = worker_service_pb2.SubmitRequest(
        request_id=request_id,
        attempt=attempt,
        leg=_LEGS[leg],
        prompt_token_ids=prompt_token_ids,
        sampling=sampling,
        handover=handover if leg is Leg.DECODE else b"",
    )
    if leg is Leg.PREFILL:
        message.sampling.max_tokens = 1
        message.sampling.min_tokens = 0
        message.sampling.ClearField("stop")
    return message
