"""One connection to one incarnation of a worker: its Steps stream, and what is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc.aio
import structlog

from readahead.core.cluster import WorkerDescription
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import RequestId, WorkerId
from readahead.router import wire
from readahead.router.outbox import LegKey, Outbox
from readahead.router.reader_mail import ReaderMail, ReaderNote
from readahead.runtime.clock import monotonic_s
from readahead.runtime.config import PeerTlsConfig
from readahead.runtime.rpc.channel import channel
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.v1 import worker_service_pb2 as pb
from readahead.v1 import worker_service_pb2_grpc

_SUBMIT_S_MAX = 5.0
"""A worker answers once its engine has the leg, in milliseconds; ten engine steps of the longest
kind pass within this."""
_CONTROL_S_MAX = 2.0
"""Longest wait for the answer to a cancel, a renewal or a release; leases outlast it."""
_NAMES_PER_MESSAGE = 4096
"""The proto's own limit."""
_READERS_EVERY_S = 0.05
"""News of readers is gathered for so long: an engine plans in seconds of unread text, and a call
costs a thousand times more than a note in it."""
_CANCELS_AT_ONCE = 64
"""Cancels in flight to one worker; a burst of departures must not starve its Submits."""

log = structlog.get_logger()

OnStep = Callable[["WorkerLink", pb.StepsResponse], None]
OnDraining = Callable[["WorkerLink"], None]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEars:
    """Who is told what a worker says."""

    on_step: OnStep
    on_draining: OnDraining


class UnansweredError(Exception):
    """A worker may or may not have taken a leg; its attempt is of no more use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A leg that has stopped, for another worker to go on with."""

    handover: bytes
    output_token_ids: Sequence[int]
    """All output of the request so far."""


class LinkBrokenError(Exception):
    """The connection to a worker is of no use any more."""


class WorkerLink:
    """A dialled worker. `open`, then `run` until it breaks or is stopped, then `close`.

    Its `router_id` is its own, so that the worker cannot mistake the legs of a connection that
    has broken for those of the one that follows it.
    """

    def __init__(
        self,
        address: str,
        *,
        router_id: str,
        silence_s_max: float,
        message_bytes_max: int,
        tls: PeerTlsConfig,
        ears: LinkEars,
    ) -> None:
        self.address = address
        self._router_id = router_id
        self._silence_s_max = silence_s_max
        self._ears = ears
        self._channel = channel(address, message_bytes_max=message_bytes_max, tls=tls)
        self._stub: worker_service_pb2_grpc.WorkerServiceAsyncStub = (
            worker_service_pb2_grpc.WorkerServiceStub(self._channel)  # type: ignore[assignment]  # one class serves both
        )
        self._outbox = Outbox()
        self._reader_mail = ReaderMail()
        self._submitting: set[LegKey] = set()
        self._cancels_due: set[LegKey] = set()
        self._stopped = asyncio.Event()
        self._cause = ""
        self._heard_at = monotonic_s()
        self._sequence = 0
        self._is_draining = False
        self._moves_legs = False
        self._call: grpc.aio.UnaryStreamCall[pb.StepsRequest, pb.StepsResponse] | None = None
        self._description: WorkerDescription | None = None

    @property
    def description(self) -> WorkerDescription:
        """What the worker said of itself; known once the link is open."""
        assert self._description is not None
        return self._description

    @property
    def worker_id(self) -> WorkerId:
        return self.description.worker_id

    async def open(self) -> WorkerDescription:
        """Asks the worker what it is and opens its Steps stream.

        Raises:
            ReadaheadError: it cannot be reached, or its answer makes no sense.
        """
        try:
            answer = await self._stub.Describe(pb.DescribeRequest(), timeout=self._silence_s_max)
            self._description = wire.description_from_proto(answer)
            self._moves_legs = answer.moves_legs
            if answer.draining:
                raise ReadaheadError(Reason.NO_WORKER, "the worker is draining")
            call = self._stub.Steps(pb.StepsRequest(router_id=self._router_id))
            self._call = call
            async with asyncio.timeout(self._silence_s_max):
                await call.initial_metadata()  # the worker has the stream; Submit may follow
            if call.done():
                raise ReadaheadError(Reason.WORKER_LOST, await call.details() or "no Steps stream")
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except TimeoutError as error:
            raise ReadaheadError(Reason.WORKER_LOST, "the worker opens no Steps stream") from error
        self._heard_at = monotonic_s()
        return self.description

    @property
    def is_draining(self) -> bool:
        """It has said that it takes no new legs."""
        return self._is_draining

    @property
    def moves_legs(self) -> bool:
        """Its legs can move to other such workers, and theirs to it."""
        return self._moves_legs

    async def run(self) -> str:
        """Reads and writes until the link breaks or is stopped; returns the cause."""
        cause = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_steps())
                tasks.create_task(self._send_outbox())
                tasks.create_task(self._send_reader_mail())
                tasks.create_task(self._probe())
                tasks.create_task(self._wait_stop())
        except* LinkBrokenError as broken:
            cause = str(broken.exceptions[0])
        return cause

    def stop(self, cause: str) -> None:
        """Makes `run` return."""
        self._cause = self._cause or cause
        self._stopped.set()

    async def close(self) -> None:
        """Ends the stream, which makes the worker cancel this link's legs, and hangs up.

        Handovers outlive the stream, so releases that are due are sent first.
        """
        if self._call is not None:
            if releases := self._outbox.take_releases(_NAMES_PER_MESSAGE):
                await self._release_now(releases)
            self._call.cancel()
        await self._channel.close()

    async def submit(self, message: pb.SubmitRequest, headers: Mapping[str, str]) -> None:
        """Hands a leg over.

        Raises:
            ReadaheadError: the worker did not take it.
            UnansweredError: nobody knows whether it did.
        """
        key = LegKey(RequestId(message.request_id), message.attempt)
        message.router_id = self._router_id
        self._submitting.add(key)
        try:
            await self._submit(message, tuple(headers.items()))
        finally:
            self._submitting.discard(key)
            if key in self._cancels_due:
                self._cancels_due.discard(key)
                self._outbox.cancel(key, now=monotonic_s())

    async def reserve_leg(self, key: LegKey, *, context_tokens: int) -> None:
        """Has the worker keep room for a leg that is to move there.

        Raises:
            ReadaheadError: it has none, or cannot be asked.
        """
        message = pb.ReserveLegRequest(
            request_id=key.request_id,
            attempt=key.attempt,
            context_tokens=context_tokens,
            router_id=self._router_id,
        )
        await self._ask(self._stub.ReserveLeg(message, timeout=_SUBMIT_S_MAX))

    async def stop_leg(self, key: LegKey, *, move: int) -> Stopped:
        """Stops a leg that generates; `resume` lets it go on.

        Raises:
            ReadaheadError: it has not stopped, or nobody knows.
        """
        message = pb.StopLegRequest(request_id=key.request_id, attempt=key.attempt, move=move)
        answer = await self._ask(self._stub.StopLeg(message, timeout=_SUBMIT_S_MAX))
        return Stopped(handover=answer.handover, output_token_ids=answer.output_token_ids)

    def resume(self, key: LegKey, *, move: int) -> None:
        """Calls a move off: its leg goes on."""
        self._outbox.resume(key, move=move)

    def cancel(self, key: LegKey) -> None:
        """Ends a leg, after its Submit has been answered: the worker must not see them swapped."""
        if key in self._submitting:
            self._cancels_due.add(key)
        else:
            self._outbox.cancel(key, now=monotonic_s())

    def renew(self, key: LegKey) -> None:
        """Extends the lease of a handover."""
        self._outbox.renew(key)

    def release(self, key: LegKey) -> None:
        """Frees a handover."""
        self._outbox.release(key)

    def tell_reader(self, key: LegKey, note: ReaderNote) -> None:
        """Says what is known of a leg's reader."""
        self._reader_mail.put(key, note)

    async def _ask(self, call: Awaitable[_Answer]) -> _Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ReadaheadError(Reason.WORKER_LOST, "the connection was closed") from None

    async def _submit(
        self, message: pb.SubmitRequest, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        try:
            await self._ask(self._stub.Submit(message, metadata=metadata, timeout=_SUBMIT_S_MAX))
        except ReadaheadError as refusal:
            # CANCELLED: the worker remembers a cancel of this attempt, and will not run it.
            if refusal.reason in (Reason.DEADLINE_EXCEEDED, Reason.CANCELLED):
                raise UnansweredError(f"submit: {refusal.reason}") from refusal
            raise

    async def _read_steps(self) -> None:
        call = self._call
        assert call is not None
        on_step = self._ears.on_step
        try:
            while True:
                response = await call.read()
                if not isinstance(response, pb.StepsResponse):
                    break  # EOF
                self._heard_at = monotonic_s()
                if response.sequence != self._sequence:
                    raise LinkBrokenError(f"step {response.sequence} came for {self._sequence}")
                self._sequence += 1
                on_step(self, response)
        except grpc.aio.AioRpcError as error:
            raise LinkBrokenError(f"stream broken: {error.code().name}") from error
        code = await call.code()
        raise LinkBrokenError(f"stream ended: {code.name}")

    async def _wait_stop(self) -> None:
        await self._stopped.wait()
        raise LinkBrokenError(self._cause)

    async def _probe(self) -> None:
        """A worker that is stopped, or cut off without a word, breaks nothing: it is silent."""
        while True:
            await asyncio.sleep(self._silence_s_max / 2)
            try:
                answer = await self._stub.Describe(
                    pb.DescribeRequest(), timeout=self._silence_s_max / 2
                )
            except grpc.aio.AioRpcError as error:
                silent_s = monotonic_s() - self._heard_at
                if silent_s >= self._silence_s_max:
                    raise LinkBrokenError(f"silent for {silent_s:.1f} s") from error
                continue
            self._heard_at = monotonic_s()
            if answer.incarnation != self.description.incarnation:
                raise LinkBrokenError("another incarnation answers")
            if answer.draining and not self._is_draining:
                self._is_draining = True
                self._ears.on_draining(self)

    async def _send_outbox(self) -> None:
        while True:
            await self._outbox.wait()
            async with asyncio.TaskGroup() as calls:
                for key in self._outbox.take_cancels(_CANCELS_AT_ONCE):
                    calls.create_task(self._cancel_now(key))
                if renewals := self._outbox.take_renewals(_NAMES_PER_MESSAGE):
                    calls.create_task(self._renew_now(renewals))
                if releases := self._outbox.take_releases(_NAMES_PER_MESSAGE):
                    calls.create_task(self._release_now(releases))
                for key, move in self._outbox.take_resumes().items():
                    calls.create_task(self._resume_now(key, move))

    async def _send_reader_mail(self) -> None:
        while True:
            await self._reader_mail.wait()
            await asyncio.sleep(_READERS_EVERY_S)
            message = wire.readers_to_proto(
                self._reader_mail.take(_NAMES_PER_MESSAGE), now=monotonic_s()
            )
            try:
                await self._stub.UpdateReaders(message, timeout=_CONTROL_S_MAX)
            except grpc.aio.AioRpcError as error:
                # The worker goes on by its own reckoning, and the next news corrects it.
                log.debug("reader_news_lost", address=self.address, code=error.code().name)

    async def _cancel_now(self, key: LegKey) -> None:
        message = pb.WorkerServiceCancelRequest(request_id=key.request_id, attempt=key.attempt)
        try:
            await self._stub.Cancel(message, timeout=_CONTROL_S_MAX)
        except grpc.aio.AioRpcError as error:
            # The leg's next news finds no session, and is answered with another cancel.
            log.warning("cancel_failed", address=self.address, code=error.code().name)

    async def _resume_now(self, key: LegKey, move: int) -> None:
        message = pb.ResumeLegRequest(request_id=key.request_id, attempt=key.attempt, move=move)
        try:
            await self._stub.ResumeLeg(message, timeout=_CONTROL_S_MAX)
        except grpc.aio.AioRpcError as error:
            # A leg that has stopped goes on by itself after some seconds.
            log.warning("resume_failed", address=self.address, code=error.code().name)

    async def _renew_now(self, keys: Sequence[LegKey]) -> None:
        message = pb.RenewHandoversRequest(handovers=_handover_ids(keys))
        try:
            answer = await self._stub.RenewHandovers(message, timeout=_CONTROL_S_MAX)
        except grpc.aio.AioRpcError as error:
            # The next renewal comes well within the lease.
            log.warning("handover_renewal_failed", address=self.address, code=error.code().name)
            return
        for gone in answer.unknown:
            # Pulled a moment ago, or lost: then the decode leg fails with KV_EXPIRED.
            log.info("handover_gone", request_id=gone.request_id, attempt=gone.attempt)

    async def _release_now(self, keys: Sequence[LegKey]) -> None:
        message = pb.ReleaseHandoversRequest(handovers=_handover_ids(keys))
        try:
            await self._stub.ReleaseHandovers(message, timeout=_CONTROL_S_MAX)
        except asyncio.CancelledError:
            for key in keys:  # the link stops: `close` sends them once more
                self._outbox.release(key)
            raise
        except grpc.aio.AioRpcError as error:
            # The lease, which nobody renews any more, frees them.
            log.warning("handover_release_failed", address=self.address, code=error.code().name)


def _handover_ids(keys: Sequence[LegKey]) -> list[pb.HandoverId]:
    return [pb.HandoverId(request_id=key.request_id, attempt=key.attempt) for key in keys]
