"""Router parts without a network: a session, a link that remembers, a core that is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from readahead.core.cluster import Role, WorkerDescription
from readahead.core.config import CoreConfig
from readahead.core.errors import ReadaheadError
from readahead.core.reading.clock import ReadingClock
from readahead.core.reading.pace import PaceSource
from readahead.core.request import Incarnation, RequestId, WorkerId
from readahead.core.router_state import RouterState
from readahead.router.config import DoorsConfig
from readahead.router.driver import Driver
from readahead.router.frame_gap import FrameHold
from readahead.router.links import Stopped
from readahead.router.outbox import LegKey
from readahead.router.reader import Reader
from readahead.router.reader_mail import ReaderNote
from readahead.router.session import LiveSession
from readahead.router.session_table import SessionTable
from readahead.router.sessions import Call, Sampling
from readahead.router.traces import RequestTrace
from readahead.runtime.clock import monotonic_s
from readahead.v1 import worker_service_pb2 as pb

if TYPE_CHECKING:
    from readahead.router.links import WorkerLink


def toy_call(request_id: str = "r", *, prompt_tokens: int = 3, max_tokens: int | None = 8) -> Call:
    """A call with a prompt of ones."""
    return Call(
        request_id=RequestId(request_id),
        model="toy",
        prompt_token_ids=[1] * prompt_tokens,
        sampling=Sampling(max_tokens=max_tokens),
        door="grpc",
    )


def toy_reader(*, pace_tok_s: float = 5.0, commit_s: float = 0.0) -> Reader:
    """A reader without a name or a trace."""
    clock = ReadingClock(pace_tok_s=pace_tok_s, commit_s=commit_s)
    return Reader(clock, pace_source=PaceSource.DEFAULT)


def toy_session(
    *,
    arrived_at: float = 0.0,
    gap_s_max: float = 0.0,
    on_cancel: Callable[[RequestId], None] = lambda _: None,
) -> LiveSession:
    """A session of its own, without a driver."""
    call = toy_call()
    return LiveSession(
        call,
        max_tokens=8,
        arrived_at=arrived_at,
        trace=RequestTrace(call, max_tokens=8),
        reader=toy_reader(commit_s=arrived_at),
        gap_s_max=gap_s_max,
        hold=FrameHold(gap_s_max=gap_s_max, now=monotonic_s),
        on_cancel=on_cancel,
    )


def toy_description(worker_id: str = "d0", role: Role = Role.DECODE) -> WorkerDescription:
    """A worker with room for everything."""
    return WorkerDescription(
        worker_id=WorkerId(worker_id),
        incarnation=Incarnation("1"),
        role=role,
        engine="fake",
        model="toy",
        context_tokens_max=1000,
        block_tokens=16,
        kv_blocks=1000,
        requests_max=100,
        prefill_credits=4,
        handover_lease_s=30.0 if role is Role.PREFILL else 0.0,
    )


class FakeLink:
    """A WorkerLink that takes everything and remembers it; `refusal` is raised at Submit.

    A leg that is to stop does so once `let_stop` is called.
    """

    def __init__(self, worker_id: str = "d0", role: Role = Role.DECODE) -> None:
        self.description = toy_description(worker_id, role)
        self.worker_id = self.description.worker_id
        self.is_draining = False
        self.submitted: list[pb.SubmitRequest] = []
        self.headers: list[Mapping[str, str]] = []
        self.cancelled: list[LegKey] = []
        self.renewed: list[LegKey] = []
        self.released: list[LegKey] = []
        self.moves_legs = True
        self.reserved: list[LegKey] = []
        self.stops: list[LegKey] = []
        self._stopped = Stopped(handover=b"", output_token_ids=())
        self._has_stopped = asyncio.Event()
        self.resumed: list[tuple[LegKey, int]] = []
        self.notes: list[tuple[LegKey, ReaderNote]] = []
        self.refusal: Exception | None = None

    async def submit(self, message: pb.SubmitRequest, headers: Mapping[str, str]) -> None:
        self.submitted.append(message)
        self.headers.append(headers)
        await asyncio.sleep(0)
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal

    async def reserve_leg(self, key: LegKey, *, context_tokens: int) -> None:
        assert context_tokens > 0
        self.reserved.append(key)

    async def stop_leg(self, key: LegKey, *, move: int) -> Stopped:
        assert move > 0
        self.stops.append(key)
        await self._has_stopped.wait()
        return self._stopped

    def let_stop(self, output_token_ids: Sequence[int]) -> None:
        """The leg has stopped, after so much output."""
        self._stopped = Stopped(handover=b"kv", output_token_ids=output_token_ids)
        self._has_stopped.set()

    def resume(self, key: LegKey, *, move: int) -> None:
        self.resumed.append((key, move))

    def cancel(self, key: LegKey) -> None:
        self.cancelled.append(key)

    def renew(self, key: LegKey) -> None:
        self.renewed.append(key)

    def release(self, key: LegKey) -> None:
        self.released.append(key)

    def tell_reader(self, key: LegKey, note: ReaderNote) -> None:
        self.notes.append((key, note))

    def as_link(self) -> WorkerLink:
        """Itself, under the type that the driver asks for."""
        return cast("WorkerLink", self)  # has what the driver and the relay use


def toy_table(
    driver: Driver, *, requests_max: int = 100, now: Callable[[], float] = monotonic_s
) -> SessionTable:
    """Sessions on a driver."""
    return SessionTable(
        driver,
        core=CoreConfig(),
        model="toy",
        context_tokens_max=1000,
        doors=DoorsConfig(requests_max=requests_max),
        now=now,
    )


def toy_driver() -> Driver:
    """A driver on a core with default settings."""
    return Driver(RouterState(CoreConfig()))


async def settle() -> None:
    """Lets effects run that need no more than a few passes of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


def error_of(session: LiveSession) -> ReadaheadError:
    """How a session ended, badly."""
    assert isinstance(session.end, ReadaheadError)
    return session.end
