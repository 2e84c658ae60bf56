"""WorkerService: what a router may ask of this worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import structlog

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import Leg
from readahead.runtime.clock import monotonic_s
from readahead.services.engine.engine import Engine, LegKey
from readahead.services.worker import metrics, wire
from readahead.services.worker.identity import WorkerIdentity
from readahead.services.worker.legs import Legs
from readahead.services.worker.steps import StepStream
from readahead.v1 import worker_service_pb2 as pb
from readahead.v1 import worker_service_pb2_grpc as pb_grpc

SERVICE = "readahead.v1.WorkerService"

RETRY_S = 0.1
"""When a full worker may have room: a leg ends every few iterations of a full batch."""

_Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger()


class WorkerServicer(pb_grpc.WorkerServiceServicer):
    """Answers routers. Streams and legs are its own; the engine is lent to it."""

    def __init__(
        self,
        engine: Engine,
        identity: WorkerIdentity,
        legs: Legs,
        *,
        on_drain: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._legs = legs
        self._on_drain = on_drain
        self._streams: dict[str, StepStream] = {}
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """New legs are refused."""
        return self._is_draining

    def drain(self) -> None:
        """Refuses new legs from here on."""
        if not self._is_draining:
            self._is_draining = True
            metrics.DRAINING.set(1)
            _log.info("worker_drained", worker_id=self._identity.worker_id, legs=len(self._legs))
            self._on_drain()

    def close_streams(self) -> None:
        """Ends every router's stream once its news is sent."""
        for stream in self._streams.values():
            stream.close()

    async def Describe(self, request: pb.DescribeRequest, context: _Context) -> pb.DescribeResponse:
        return wire.describe_response(
            self._identity, self._engine.description, is_draining=self._is_draining
        )

    async def Submit(self, request: pb.SubmitRequest, context: _Context) -> pb.SubmitResponse:
        try:
            leg = wire.leg_request(request, now=monotonic_s())
            if not self._legs.is_known(leg):
                stream = self._place_for(
                    leg.key,
                    request.router_id,
                    context_tokens=len(leg.prompt_token_ids) + len(leg.output_token_ids),
                    makes_handover=leg.leg is Leg.PREFILL,
                )
                self._legs.start(leg, stream, headers=_headers(context))
        except ReadaheadError as error:
            metrics.REFUSALS.labels(error.reason.lower()).inc()
            raise
        return pb.SubmitResponse()

    async def Cancel(
        self, request: pb.WorkerServiceCancelRequest, context: _Context
    ) -> pb.WorkerServiceCancelResponse:
        self._legs.cancel(wire.leg_key(request.request_id, request.attempt))
        return pb.WorkerServiceCancelResponse()

    async def Steps(
        self, request: pb.StepsRequest, context: _Context
    ) -> AsyncIterator[pb.StepsResponse]:
        if not request.router_id:
            raise ReadaheadError(
                Reason.INVALID_REQUEST, "router_id is empty", parameter="router_id"
            )
        if (replaced := self._streams.get(request.router_id)) is not None:
            _log.warning("router_stream_replaced", router_id=request.router_id)
            self._end(replaced)
        stream = StepStream(request.router_id, load=self._engine.load)
        self._streams[request.router_id] = stream
        _log.info("router_connected", router_id=request.router_id)
        try:
            async for message in stream.messages():
                yield message
        finally:
            self._end(stream)
            _log.info("router_disconnected", router_id=request.router_id)

    async def ReserveLeg(
        self, request: pb.ReserveLegRequest, context: _Context
    ) -> pb.ReserveLegResponse:
        key, tokens = wire.leg_key(request.request_id, request.attempt), request.context_tokens
        try:
            if not self._engine.description.moves_legs:
                raise ReadaheadError(Reason.UNSUPPORTED, "this worker's legs do not move")
            self._legs.check_not_over(key)
            self._place_for(key, request.router_id, context_tokens=tokens)
            self._legs.reservations.keep(key, context_tokens=tokens)
        except ReadaheadError as error:
            metrics.REFUSALS.labels(error.reason.lower()).inc()
            raise
        return pb.ReserveLegResponse()

    async def StopLeg(self, request: pb.StopLegRequest, context: _Context) -> pb.StopLegResponse:
        key, move = wire.move_of(request)
        try:
            stopped = await self._legs.departures.stop(key, move)
        except ReadaheadError as error:
            metrics.STOPS.labels(error.reason.lower()).inc()
            raise
        metrics.STOPS.labels("stopped").inc()
        return pb.StopLegResponse(
            handover=stopped.handover, output_token_ids=stopped.output_token_ids
        )

    async def ResumeLeg(
        self, request: pb.ResumeLegRequest, context: _Context
    ) -> pb.ResumeLegResponse:
        await self._legs.departures.resume(*wire.move_of(request))
        return pb.ResumeLegResponse()

    async def RenewHandovers(
        self, request: pb.RenewHandoversRequest, context: _Context
    ) -> pb.RenewHandoversResponse:
        keys = wire.handover_keys(request.handovers)
        return wire.renew_response(await self._engine.renew_handovers(keys))

    async def ReleaseHandovers(
        self, request: pb.ReleaseHandoversRequest, context: _Context
    ) -> pb.ReleaseHandoversResponse:
        await self._engine.release_handovers(wire.handover_keys(request.handovers))
        return pb.ReleaseHandoversResponse()

    async def UpdateReaders(
        self, request: pb.UpdateReadersRequest, context: _Context
    ) -> pb.UpdateReadersResponse:
        self._engine.update_readers(wire.reader_updates(request.readers, now=monotonic_s()))
        return pb.UpdateReadersResponse()

    async def Inspect(self, request: pb.InspectRequest, context: _Context) -> pb.InspectResponse:
        state = await self._engine.inspect()
        return wire.inspect_response(state, kv_blocks=self._engine.description.kv_blocks)

    async def Drain(self, request: pb.DrainRequest, context: _Context) -> pb.DrainResponse:
        self.drain()
        return pb.DrainResponse(legs=len(self._legs))

    def _place_for(
        self, key: LegKey, router_id: str, *, context_tokens: int, makes_handover: bool = False
    ) -> StepStream:
        """The stream that gets the leg's news.

        Raises:
            ReadaheadError: the leg is not taken; says why.
        """
        description = self._engine.description
        if self._is_draining:
            raise ReadaheadError(
                Reason.NO_WORKER, "this worker is draining", metadata={"draining": "true"}
            )
        if makes_handover and description.handover_lease_s == 0:
            raise ReadaheadError(
                Reason.UNSUPPORTED, "this worker makes no handovers", parameter="leg"
            )
        if context_tokens >= description.context_tokens_max:
            raise ReadaheadError(
                Reason.CONTEXT_TOO_LONG,
                f"the prompt has {context_tokens} tokens; prompt and output together "
                f"may have {description.context_tokens_max}",
                parameter="prompt_token_ids",
                metadata={"context_tokens_max": str(description.context_tokens_max)},
            )
        stream = self._streams.get(router_id)
        if stream is None:
            raise ReadaheadError(
                Reason.STALE_INCARNATION,
                "this router has no Steps stream here",
                parameter="router_id",
            )
        kept = len(self._legs.reservations) - (key in self._legs.reservations)
        if len(self._legs) + kept >= description.requests_max:
            raise ReadaheadError(
                Reason.OVERLOADED,
                f"{len(self._legs)} legs run here and {kept} are to come, which is the limit",
                retry_after_s=RETRY_S,
                metadata={"requests_max": str(description.requests_max)},
            )
        return stream

    def _end(self, stream: StepStream) -> None:
        """A router that has no stream gets no tokens: its legs end with it."""
        if self._streams.get(stream.router_id) is stream:
            del self._streams[stream.router_id]
        stream.close()
        self._legs.cancel_stream(stream)


def _headers(context: _Context) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    return {key: value for key, value in metadata if isinstance(value, str)}
