"""Protobuf messages of the worker's service, to and from what the worker speaks of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from readahead.core.cluster import Role, WorkerLoad
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.promise import Promise, PromisedStage, Verdict
from readahead.core.request import FinishReason, Leg, RequestId
from readahead.services.engine.engine import (
    EngineDescription,
    EngineState,
    LegEnd,
    LegKey,
    LegOutput,
    LegRequest,
    ReaderUpdate,
    Sampling,
)
from readahead.services.worker.identity import WorkerIdentity
from readahead.v1 import sampling_pb2, worker_service_pb2

HANDOVERS_MAX = 4096
"""Most handovers in one call."""

READERS_MAX = 4096
"""Most readers in one call."""

AHEAD_NS_MAX = 24 * 3600 * 10**9
"""How far ahead a moved leg's reader may be: more than anybody has text left for."""

PACE_TOK_S_LEAST, PACE_TOK_S_MOST = 0.01, 10_000.0
"""Wider than any front door's bounds: routers choose, workers only stay sane."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""Engines name a leg `<request id>.<attempt>` and take it apart at the last dot."""

_LEGS = {
    worker_service_pb2.LEG_PREFILL: Leg.PREFILL,
    worker_service_pb2.LEG_DECODE: Leg.DECODE,
    worker_service_pb2.LEG_WHOLE: Leg.WHOLE,
}
_ROLES = {
    Role.PREFILL: worker_service_pb2.ROLE_PREFILL,
    Role.DECODE: worker_service_pb2.ROLE_DECODE,
}
_VERDICTS = {
    worker_service_pb2.VERDICT_UNSPECIFIED: Verdict.NEW,
    worker_service_pb2.VERDICT_ACCEPTED: Verdict.ACCEPTED,
    worker_service_pb2.VERDICT_BEST_EFFORT: Verdict.BEST_EFFORT,
}
_VERDICT_NUMBERS = {verdict: number for number, verdict in _VERDICTS.items()}
_FINISH_REASONS = {
    FinishReason.STOP: sampling_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: sampling_pb2.FINISH_REASON_LENGTH,
}


def _invalid(message: str, parameter: str) -> ReadaheadError:
    return ReadaheadError(Reason.INVALID_REQUEST, message, parameter=parameter)


def leg_key(request_id: str, attempt: int) -> LegKey:
    """The name of a leg.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if REQUEST_ID.fullmatch(request_id) is None:
        raise _invalid("request_id must be 1 to 128 of A-Z a-z 0-9 . _ -", "request_id")
    if attempt < 1:
        raise _invalid("attempt counts from 1", "attempt")
    return RequestId(request_id), attempt


def leg_request(message: worker_service_pb2.SubmitRequest, *, now: float) -> LegRequest:
    """The leg to run, submitted now (seconds on the monotonic clock).

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    key = leg_key(message.request_id, message.attempt)
    leg = _LEGS.get(message.leg)
    if leg is None:
        raise _invalid(f"leg {message.leg} is not known here", "leg")
    if not message.prompt_token_ids:
        raise _invalid("the prompt is empty", "prompt_token_ids")
    if bool(message.handover) != (leg is Leg.DECODE):
        raise _invalid("a handover goes with LEG_DECODE and with nothing else", "handover")
    if message.output_token_ids and leg is not Leg.DECODE:
        raise _invalid("output so far goes with LEG_DECODE and with nothing else", "leg")
    return LegRequest(
        key=key,
        leg=leg,
        prompt_token_ids=list(message.prompt_token_ids),
        sampling=sampling(message.sampling),
        handover=message.handover,
        pace_tok_s=_pace(message.pace_tok_s) if message.HasField("pace_tok_s") else None,
        arrived_at=now - _age_ns(message) / 1e9 if message.HasField("age_ns") else None,
        output_token_ids=list(message.output_token_ids),
        promise=_promise(message.promise) if message.HasField("promise") else None,
        verdict=_VERDICTS.get(message.verdict, Verdict.NEW),
    )


def _promise(message: worker_service_pb2.LegPromise) -> Promise:
    try:
        return Promise(
            first_token_s=message.first_token_s,
            stages=tuple(
                PromisedStage(
                    token_s=stage.token_s,
                    tokens=stage.tokens if stage.HasField("tokens") else None,
                    until_token_id=(
                        stage.until_token_id if stage.HasField("until_token_id") else None
                    ),
                )
                for stage in message.stages
            ),
        )
    except ValueError as error:
        raise _invalid(f"promise: {error}", "promise") from error


def _age_ns(message: worker_service_pb2.SubmitRequest) -> int:
    least = -AHEAD_NS_MAX if message.output_token_ids else 0
    return max(least, message.age_ns)


def move_of(
    message: worker_service_pb2.StopLegRequest | worker_service_pb2.ResumeLegRequest,
) -> tuple[LegKey, int]:
    """The leg, and the number of its move.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if message.move < 1:
        raise _invalid("move counts from 1", "move")
    return leg_key(message.request_id, message.attempt), message.move


def reader_updates(
    readers: Sequence[worker_service_pb2.ReaderNews], *, now: float
) -> list[ReaderUpdate]:
    """News of readers, told now (seconds on the monotonic clock).

    Raises:
        ReadaheadError: INVALID_REQUEST; too many, or one is malformed.
    """
    if len(readers) > READERS_MAX:
        raise _invalid(f"at most {READERS_MAX} readers in one call", "readers")
    return [
        ReaderUpdate(
            key=leg_key(news.request_id, news.attempt),
            at=now - max(0, news.age_ns) / 1e9,
            pace_tok_s=_pace(news.pace_tok_s) if news.HasField("pace_tok_s") else None,
            tokens_read=news.tokens_read if news.HasField("tokens_read") else None,
        )
        for news in readers
    ]


def _pace(pace_tok_s: float) -> float:
    if not PACE_TOK_S_LEAST <= pace_tok_s <= PACE_TOK_S_MOST:
        raise _invalid(
            f"pace_tok_s must be from {PACE_TOK_S_LEAST:g} to {PACE_TOK_S_MOST:g}", "pace_tok_s"
        )
    return pace_tok_s


def sampling(message: sampling_pb2.SamplingParams) -> Sampling:
    """How tokens are chosen; what is unset takes the documented default.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if message.max_tokens < 1:
        raise _invalid("sampling.max_tokens must be set and at least 1", "sampling.max_tokens")
    numbers = (
        message.temperature,
        message.top_p,
        message.presence_penalty,
        message.frequency_penalty,
    )
    if not all(map(math.isfinite, numbers)):
        raise _invalid("sampling holds a number that is not finite", "sampling")
    if any(not stop for stop in message.stop):
        raise _invalid("a stop string is empty", "sampling.stop")
    return Sampling(
        max_tokens=message.max_tokens,
        temperature=message.temperature if message.HasField("temperature") else 1.0,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        top_k=message.top_k,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
        ignore_eos=message.ignore_eos,
        min_tokens=message.min_tokens,
    )


def handover_keys(handovers: Sequence[worker_service_pb2.HandoverId]) -> list[LegKey]:
    """The names of handovers.

    Raises:
        ReadaheadError: INVALID_REQUEST; too many, or one is malformed.
    """
    if len(handovers) > HANDOVERS_MAX:
        raise _invalid(f"at most {HANDOVERS_MAX} handovers in one call", "handovers")
    return [leg_key(handover.request_id, handover.attempt) for handover in handovers]


def renew_response(unknown: Iterable[LegKey]) -> worker_service_pb2.RenewHandoversResponse:
    """Names the handovers that are not here."""
    response = worker_service_pb2.RenewHandoversResponse()
    for request_id, attempt in unknown:
        response.unknown.add(request_id=request_id, attempt=attempt)
    return response


def describe_response(
    identity: WorkerIdentity, engine: EngineDescription, *, is_draining: bool
) -> worker_service_pb2.DescribeResponse:
    """What this worker is."""
    return worker_service_pb2.DescribeResponse(
        worker_id=identity.worker_id,
        incarnation=identity.incarnation,
        role=_ROLES[identity.role],
        engine=engine.engine,
        model=engine.model,
        context_tokens_max=engine.context_tokens_max,
        block_tokens=engine.block_tokens,
        kv_blocks=engine.kv_blocks,
        requests_max=engine.requests_max,
        prefill_credits=identity.prefill_credits,
        draining=is_draining,
        version=version("readahead"),
        engine_version=engine.engine_version,
        handover_lease_ms=round(engine.handover_lease_s * 1000),
        moves_legs=engine.moves_legs,
        kv_transport=engine.kv_transport,
        zero_load_ttft=_zero_load(engine),
    )


def _zero_load(engine: EngineDescription) -> list[worker_service_pb2.ZeroLoadTtft]:
    curve = engine.zero_load
    if curve is None:
        return []
    return [
        worker_service_pb2.ZeroLoadTtft(prompt_tokens=tokens, seconds=seconds)
        for tokens, seconds in zip(curve.sizes, curve.values, strict=True)
    ]


def inspect_response(state: EngineState, *, kv_blocks: int) -> worker_service_pb2.InspectResponse:
    """What the engine holds."""
    return worker_service_pb2.InspectResponse(
        load=_load(state.load),
        kv_blocks=kv_blocks,
        handovers_held=state.handovers_held,
        transfers_total=state.transfers_total,
        transfer_bytes_total=state.transfer_bytes_total,
    )


def steps_response(
    sequence: int, news: Iterable[tuple[LegKey, LegOutput]], *, load: WorkerLoad
) -> worker_service_pb2.StepsResponse:
    """One message of a Steps stream."""
    response = worker_service_pb2.StepsResponse(sequence=sequence, load=_load(load))
    add = response.deltas.add
    for (request_id, attempt), output in news:
        delta = add(
            request_id=request_id,
            attempt=attempt,
            token_ids=output.token_ids,
            text=output.text,
        )
        if output.wait_s is not None and output.first_token_s is not None:
            delta.timings.wait_ns = round(output.wait_s * 1e9)
            delta.timings.first_token_ns = round(output.first_token_s * 1e9)
        if output.verdict is not None:
            delta.verdict = _VERDICT_NUMBERS[output.verdict]
        if output.end is not None:
            delta.end.CopyFrom(_end(output.end))
    return response


def _load(load: WorkerLoad) -> worker_service_pb2.WorkerLoad:
    return worker_service_pb2.WorkerLoad(
        running=load.running, waiting=load.waiting, kv_blocks_free=max(0, load.kv_blocks_free)
    )


def _end(end: LegEnd) -> worker_service_pb2.LegEnd:
    if end.finish_reason is not None:
        return worker_service_pb2.LegEnd(
            reason=_FINISH_REASONS[end.finish_reason], handover=end.handover
        )
    if end.error_reason is Reason.CANCELLED:
        return worker_service_pb2.LegEnd(reason=sampling_pb2.FINISH_REASON_CANCELLED)
    return worker_service_pb2.LegEnd(
        reason=sampling_pb2.FINISH_REASON_ERROR,
        error_reason=end.error_reason or Reason.BUG,
        error_message=end.error_message,
    )
