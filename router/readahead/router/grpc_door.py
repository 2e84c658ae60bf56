"""The gRPC front door: InferenceService on sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import Decision, Explanation, ReadingState, SloState
from readahead.core.promise import Verdict
from readahead.core.reading.pace import Scenario
from readahead.core.request import RequestId
from readahead.core.slo import SloAsked
from readahead.router import checks, wire
from readahead.router.prompts import Prompts
from readahead.router.sessions import Call, Finish, FirstTokenSplit, Sampling, Session, Sessions
from readahead.router.stalls import StallWatch
from readahead.v1 import inference_service_pb2 as pb
from readahead.v1 import inference_service_pb2_grpc, sampling_pb2

SERVICE = "readahead.v1.InferenceService"

_TRANSIT_S_MAX = 0.05
"""The client's clock ends a call before ours does, by the time that the call took to come here; a
client that leaves so shortly before the deadline has left because of it."""

_TRACE_HEADERS = frozenset({"traceparent", "tracestate"})

_Context = grpc.aio.ServicerContext[Any, Any]


class InferenceDoor(inference_service_pb2_grpc.InferenceServiceServicer):
    """Checks what came in, opens a session, writes what comes out."""

    def __init__(self, sessions: Sessions, prompts: Prompts, *, stalls: StallWatch) -> None:
        self._sessions = sessions
        self._prompts = prompts
        self._stalls = stalls

    async def Generate(  # type: ignore[override]  # writes to the context: one hop less per token
        self, request: pb.GenerateRequest, context: _Context
    ) -> None:
        """Streams one answer."""
        session = await self._sessions.open(await self._call(request, context))
        try:
            await self._stream(session, context)
        except ReadaheadError:
            if explanation := self._sessions.explain(session.request_id):
                context.set_trailing_metadata(_trailer(explanation))
            raise
        finally:
            # At the deadline the core ends the request itself, and says so.
            remaining_s = _remaining_s(context)
            if remaining_s is None or remaining_s > _TRANSIT_S_MAX:
                session.cancel()

    async def Cancel(self, request: pb.CancelRequest, context: _Context) -> pb.CancelResponse:
        """Cancels a running request by id."""
        if not self._sessions.cancel(RequestId(request.request_id)):
            raise _not_found(request.request_id)
        return pb.CancelResponse()

    async def ReportReading(
        self, request: pb.ReportReadingRequest, context: _Context
    ) -> pb.ReportReadingResponse:
        """Takes a reader's progress."""
        tokens_read = checks.tokens_read(request.tokens_read)
        if not self._sessions.report_reading(RequestId(request.request_id), tokens_read):
            raise _not_found(request.request_id)
        return pb.ReportReadingResponse()

    async def ListModels(
        self, request: pb.ListModelsRequest, context: _Context
    ) -> pb.ListModelsResponse:
        """Lists what can be asked for."""
        return pb.ListModelsResponse(
            models=[
                pb.Model(
                    name=model.name,
                    context_tokens_max=model.context_tokens_max,
                    engine=model.engine,
                )
                for model in self._sessions.models()
            ]
        )

    async def Explain(self, request: pb.ExplainRequest, context: _Context) -> pb.ExplainResponse:
        """Tells what was decided for a request and why."""
        explanation = self._sessions.explain(RequestId(request.request_id))
        if explanation is None:
            raise _not_found(request.request_id)
        return pb.ExplainResponse(
            request_id=explanation.request_id,
            stage=explanation.stage.value,
            decisions=[
                _decision_to_proto(decision, since=explanation.arrived_at)
                for decision in explanation.decisions
            ],
            tokens_delivered=explanation.tokens_delivered,
            tokens_read=explanation.tokens_read,
            reading=_reading_to_proto(explanation.reading),
            slo=_slo_to_proto(explanation.slo),
            verdict=explanation.verdict.told,
        )

    async def _stream(self, session: Session, context: _Context) -> None:
        send = context.write
        with self._stalls.watched() as write:
            started = pb.Started(
                request_id=session.request_id,
                model=self._prompts.name,
                prompt_tokens=session.prompt_tokens,
            )
            await write(send(pb.GenerateResponse(started=started)))
            finish = None
            while finish is None:
                chunk = await session.next_chunk()
                if chunk.token_ids or chunk.text:
                    delta = pb.Delta(text=chunk.text, token_ids=chunk.token_ids)
                    await write(send(pb.GenerateResponse(delta=delta)))
                finish = chunk.finish
            context.set_trailing_metadata(_trailer(finish))
            await write(send(pb.GenerateResponse(finished=_finish_to_proto(finish))))

    async def _call(self, request: pb.GenerateRequest, context: _Context) -> Call:
        reading = request.reading
        return Call(
            request_id=checks.request_id(request.request_id),
            model=request.model,
            sampling=_sampling_from_proto(request.sampling),
            pace_tok_s=checks.pace(
                reading.pace_tok_s if reading.HasField("pace_tok_s") else None,
                parameter="reading.pace_tok_s",
            ),
            user_id=checks.user_id(reading.user_id, parameter="reading.user_id"),
            slo=self._slo(request.slo) if request.HasField("slo") else None,
            scenario=Scenario.CHAT if request.HasField("chat") else None,
            prompt_token_ids=await self._prompt(request),
            timeout_s=_remaining_s(context),
            trace_headers=_trace_headers(context),
            door="grpc",
        )

    def _slo(self, message: pb.Slo) -> SloAsked:
        values = checks.SloValues(class_name=message.class_name, think_until=message.think_until)
        if message.HasField("ttft_s"):
            values["ttft_s"] = message.ttft_s
        if message.HasField("ttft_slowdown"):
            values["ttft_slowdown"] = message.ttft_slowdown
        if message.HasField("tpot_s"):
            values["tpot_s"] = message.tpot_s
        if message.HasField("think_tpot_s"):
            values["think_tpot_s"] = message.think_tpot_s
        if message.HasField("thinking_tokens"):
            values["thinking_tokens"] = message.thinking_tokens
        return checks.slo(
            values,
            think_end_token_id=self._prompts.think_end_token_id,
            token_id=self._prompts.token_id,
        )

    async def _prompt(self, request: pb.GenerateRequest) -> Sequence[int]:
        match request.WhichOneof("input"):
            case "prompt":
                return await self._prompts.encode(checks.prompt_text(request.prompt))
            case "chat":
                messages = [
                    {"role": message.role, "content": message.content}
                    for message in request.chat.messages
                ]
                if not messages:
                    raise checks.invalid("chat has no messages.", parameter="chat.messages")
                return await self._prompts.encode_chat(messages)
            case "token_ids":
                return checks.prompt_tokens(
                    list(request.token_ids.ids),
                    vocabulary_tokens=self._prompts.vocabulary_tokens,
                    parameter="token_ids",
                )
            case _:
                raise checks.invalid("There is no prompt.", parameter="prompt")


def _sampling_from_proto(message: sampling_pb2.SamplingParams) -> Sampling:
    values = checks.SamplingValues(
        seed=message.seed if message.HasField("seed") else None,
        stop=message.stop,
        ignore_eos=message.ignore_eos,
        min_tokens=message.min_tokens,
    )
    if message.HasField("max_tokens"):
        values["max_tokens"] = message.max_tokens
    if message.HasField("temperature"):
        values["temperature"] = message.temperature
    if message.HasField("top_p"):
        values["top_p"] = message.top_p
    if message.HasField("top_k"):
        values["top_k"] = message.top_k
    if message.HasField("presence_penalty"):
        values["presence_penalty"] = message.presence_penalty
    if message.HasField("frequency_penalty"):
        values["frequency_penalty"] = message.frequency_penalty
    return checks.sampling(values, prefix="sampling.")


def _remaining_s(context: _Context) -> float | None:
    """Seconds until the caller gives up; None for never."""
    remaining_s: float | None = context.time_remaining()  # None without a deadline
    if remaining_s is not None and remaining_s > checks.TIMEOUT_S_MAX:
        return None
    return remaining_s


def _trace_headers(context: _Context) -> Mapping[str, str]:
    return {
        key: value
        for key, value in context.invocation_metadata() or ()
        if key in _TRACE_HEADERS and isinstance(value, str)
    }


def _finish_to_proto(finish: Finish) -> pb.Finished:
    return pb.Finished(
        reason=wire.finish_to_proto(finish.reason),
        prompt_tokens=finish.prompt_tokens,
        output_tokens=finish.output_tokens,
        first_token=_split_to_proto(finish.first_token),
        reading=_reading_to_proto(finish.reading),
        slo=_slo_to_proto(finish.slo),
        verdict=finish.verdict.told,
    )


def _reading_to_proto(reading: ReadingState | None) -> pb.ReadingState | None:
    if reading is None:
        return None
    return pb.ReadingState(
        pace_tok_s=reading.pace_tok_s,
        pace_source=reading.pace_source,
        unread_tokens=reading.unread_tokens,
        slack=_duration(reading.slack_s),
        idle=_duration(reading.idle_s),
        stalls=reading.stalls,
    )


def _slo_to_proto(slo: SloState | None) -> pb.SloState | None:
    if slo is None:
        return None
    return pb.SloState(
        name=slo.name,
        ttft=_duration(slo.first_token_s),
        is_kept=slo.is_kept,
        late=_duration(slo.late_s),
    )


def _trailer(end: Finish | Explanation) -> Sequence[tuple[str, str]]:
    """The same in short, for those who see no more of a stream than how it ends."""
    entries: list[tuple[str, str]] = []
    if end.reading is not None:
        entries += [
            ("readahead-idle-ms", str(round(end.reading.idle_s * 1e3))),
            ("readahead-unread-tokens", str(end.reading.unread_tokens)),
            ("readahead-stalls", str(end.reading.stalls)),
        ]
    if end.verdict is not Verdict.NEW:
        entries.append(("readahead-verdict", end.verdict.told))
    if end.slo is not None:
        entries.append(("readahead-slo", end.slo.name))
        entries.append(("readahead-slo-kept", "true" if end.slo.is_kept else "false"))
    return entries


def _split_to_proto(split: FirstTokenSplit) -> pb.FirstTokenSplit:
    return pb.FirstTokenSplit(
        queue=_duration(split.queue_s),
        prefill=_duration(split.prefill_s),
        transfer=_duration(split.transfer_s),
        first_decode=_duration(split.first_decode_s),
        total=_duration(split.total_s),
    )


def _decision_to_proto(decision: Decision, *, since: float) -> pb.DecisionRecord:
    return pb.DecisionRecord(
        at=_duration(decision.at - since),
        kind=decision.kind,
        worker_id=decision.worker_id or "",
        reason=decision.reason,
        costs={str(worker_id): cost for worker_id, cost in decision.costs.items()},
        slack=_duration(decision.slack_s),
    )


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def _not_found(request_id: str) -> ReadaheadError:
    return ReadaheadError(
        Reason.REQUEST_NOT_FOUND,
        f"No request with the id {request_id!r} is known here.",
        parameter="request_id",
    )
