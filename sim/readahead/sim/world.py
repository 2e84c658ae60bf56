"""The driver: users, the router's own core, engines and links, in virtual time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol

from readahead.core.messages import (
    AbortMigration,
    CancelLeg,
    Command,
    EndRequest,
    Event,
    MigrateLeg,
    PrefillFinished,
    ReleaseHandover,
    RenewHandover,
    SubmitLeg,
    TimerFired,
    WorkerJoined,
    WorkerLost,
)
from readahead.core.planning.policy import Plan
from readahead.core.planning.sequence import Sequence as EngineSequence
from readahead.core.request import Leg, RequestId, WorkerId
from readahead.core.router_state import RouterState
from readahead.sim.asked import AskedRequest
from readahead.sim.cluster import ClusterSpec, zero_load_ttft_s
from readahead.sim.drafts import RightDrafts
from readahead.sim.engine import Engine
from readahead.sim.engine_leg import EngineLeg, Key
from readahead.sim.engine_parts import EngineParts
from readahead.sim.faults import Fault
from readahead.sim.kernel import Appointment, Kernel
from readahead.sim.links import Network
from readahead.sim.moves import Moves
from readahead.sim.stretch import EngineTimes, Stretch, Young
from readahead.sim.users import RequestSink, Users, answer_key
from readahead.workload.session import Session


def new_router(spec: ClusterSpec) -> RouterState:
    """The router's own core, with what a live one would be told of this cluster."""
    return RouterState(spec.core, latency=spec.decode_worker.latency)


class Router(Protocol):
    """The router's core, or a wrapper of it that records."""

    def handle(self, event: Event, *, now: float) -> list[Command]:
        """Takes an event and returns what is to be done."""
        ...

    def next_deadline(self) -> float | None:
        """When a TimerFired is due."""
        ...


class Sink(RequestSink, Protocol):
    """Who gets the results as they come."""

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        """A stretch of an engine's iterations is over."""
        ...


class World:
    """One simulated run. Nothing in it depends on anything but its arguments."""

    def __init__(
        self,
        spec: ClusterSpec,
        sessions: Iterable[Session],
        *,
        sink: Sink,
        seed: int = 0,
        faults: Sequence[Fault] = (),
        router: Router | None = None,
    ) -> None:
        """Sessions are drawn one at a time; see Users.begin for how they come."""
        self.kernel = Kernel()
        self.network = Network(self.kernel, spec.link, kv_token_bytes=spec.kv_token_bytes)
        self.router: Router = router or new_router(spec)
        self.engines: dict[WorkerId, Engine] = {}
        self.lost: list[Engine] = []
        """Engines of past incarnations."""
        self.roles = dict(spec.worker_ids())
        self.events = 0
        """That the router's core took."""
        self._spec = spec
        self._incarnations = dict.fromkeys(self.roles, 0)
        self._seed = seed
        self._sink = sink
        self.users = Users(spec, sessions, kernel=self.kernel, sink=sink, tell=self.report)
        self.moves = Moves(self.engines, network=self.network, tell=self.report, landed=self._moved)
        self._news: deque[Event] = deque()
        self._is_telling = False
        self._is_shared = any(spec.worker(role).contention for role in self.roles.values())
        self._computing: set[WorkerId] = set()
        self._answers: dict[RequestId, tuple[int, float]] = {}
        """Of those who think: after how many tokens the answer comes, and at which pace."""
        self._timer: Appointment | None = None
        for worker_id in self.roles:
            self._join(worker_id)
        for fault in faults:
            if fault.worker_id not in self.roles:
                raise ValueError(f"there is no worker {fault.worker_id} to fail")
            self.kernel.at(fault.at_s, partial(self._fail, fault))

    @property
    def asked(self) -> dict[RequestId, AskedRequest]:
        """Requests that are under way."""
        return self.users.asked

    def run(self, until_s: float = math.inf) -> None:
        """Runs to the end, or up to a moment."""
        self.users.begin()
        self.kernel.run(until_s)

    # Watcher of the engines

    def report(self, event: Event) -> None:
        """Tells the router, and does what it wants."""
        self._news.append(event)
        if self._is_telling:
            return
        self._is_telling = True
        now_s, handle = self.kernel.now_s, self.router.handle
        while self._news:
            event = self._news.popleft()
            if type(event) is PrefillFinished and (asked := self.asked.get(event.request_id)):
                asked.source = self.engines[event.worker_id]
            self.events += 1
            for command in handle(event, now=now_s):
                self._carry_out(command)
        self._is_telling = False
        self._arm()

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        """Passes it on. Whoever has ended thinking goes on at the pace of his answer."""
        if self._answers:
            for sequence, _ in plan.entries:
                self._next_stage(sequence)
        self._sink.iterated(engine, plan, stretch)

    def turned(self, engine: Engine, *, is_computing: bool) -> None:
        """Engines that share a machine slow each other."""
        if not self._is_shared:
            return
        worker_id = engine.description.worker_id
        if is_computing:
            self._computing.add(worker_id)
        else:
            self._computing.discard(worker_id)
        for other_id, other in self.engines.items():
            if other is not engine:
                self._set_speed(other, other_id)

    def _set_speed(self, engine: Engine, worker_id: WorkerId) -> None:
        """By as many others as compute now."""
        share = self._spec.worker(self.roles[worker_id]).contention
        engine.slow_by(1 + share * len(self._computing - {worker_id}))

    # The router's side

    def _carry_out(self, command: Command) -> None:
        match command:
            case SubmitLeg():
                self._submit(command)
            case EndRequest():
                self._answers.pop(command.request_id, None)
                self.users.ended(command)
            case MigrateLeg():
                self.moves.begin(command)
            case AbortMigration():
                self.moves.abort(command)
            case CancelLeg() | RenewHandover() | ReleaseHandover():
                if engine := self.engines.get(command.worker_id):
                    _pass_on(command, engine)

    def _submit(self, command: SubmitLeg) -> None:
        asked = self.asked[command.request_id]
        engine = self.engines[command.worker_id]
        asked.engine, asked.attempt = engine, command.attempt
        if (
            asked.right is None
            and self._spec.worker(self.roles[command.worker_id]).draft_tokens_max
        ):
            seed = f"{self._seed}/{asked.request_id}"
            asked.right = RightDrafts(self._spec.predictability, seed=seed)
        leg = command.leg
        sequence = EngineSequence(
            request_id=command.request_id,
            attempt=command.attempt,
            prompt_tokens=asked.prompt_tokens,
            output_tokens_max=asked.output_tokens_max,
            arrived_at=asked.arrival_s,
            pace_tok_s=asked.pace_tok_s,
            reads_until=asked.arrival_s + 1 / asked.pace_tok_s,
            is_pulled=leg is Leg.DECODE,
            is_prefill_only=leg is Leg.PREFILL,
        )
        if self._spec.tells_slo:
            self._promise(sequence, asked)
        engine.submit(
            EngineLeg(
                leg=leg,
                sequence=sequence,
                output_tokens=asked.output_tokens,
                stretches=asked.stretches,
                right=asked.right,
                source=asked.source.handovers if asked.source is not None else None,
                prefix=asked.prefix,
                answer_key=answer_key(asked.session, asked.index),
            )
        )

    def _promise(self, sequence: EngineSequence, asked: AskedRequest) -> None:
        """Tells the engine the due times of the scenario instead of the reader's."""
        slo, turn = asked.turn.slo, asked.turn
        if slo is None:
            return
        pace_tok_s = 1 / slo.tpot_s
        if turn.thinking_tokens and slo.think_tpot_s is not None:
            self._answers[sequence.request_id] = (turn.thinking_tokens, pace_tok_s)
            pace_tok_s = 1 / slo.think_tpot_s
        alone_s = zero_load_ttft_s(self._spec, asked.prompt_tokens)
        sequence.pace_tok_s = pace_tok_s
        sequence.reads_until = asked.arrival_s + slo.ttft_slowdown * alone_s

    def _next_stage(self, sequence: EngineSequence) -> None:
        answer = self._answers.get(sequence.request_id)
        if answer is None or sequence.generated < answer[0]:
            return
        thinking_tokens, pace_tok_s = self._answers.pop(sequence.request_id)
        slower_s = 1 / pace_tok_s - 1 / sequence.pace_tok_s
        sequence.reads_until += (sequence.generated - thinking_tokens) * slower_s
        sequence.pace_tok_s = pace_tok_s

    def _moved(self, key: Key, engine: Engine) -> None:
        if asked := self.asked.get(key[0]):
            asked.engine = engine

    def _arm(self) -> None:
        """Sees to it that the router is called when it wants to be. One that is called too early
        is not told, and the next call is set: its deadlines mostly move on before they come."""
        due_s = self.router.next_deadline()
        if due_s is None or (self._timer is not None and self._timer.at_s <= due_s):
            return
        if self._timer is not None:
            self.kernel.cancel(self._timer)
        self._timer = self.kernel.at(max(due_s, self.kernel.now_s), self._ring)

    def _ring(self) -> None:
        self._timer = None
        due_s = self.router.next_deadline()
        if due_s is not None and due_s <= self.kernel.now_s:
            self.report(TimerFired())
        else:
            self._arm()

    # Workers

    def _join(self, worker_id: WorkerId) -> None:
        role, spec = self.roles[worker_id], self._spec
        self._incarnations[worker_id] += 1
        incarnation = self._incarnations[worker_id]
        worker = spec.worker(role)
        seed = (self._seed, list(self.roles).index(worker_id), incarnation)
        parts = EngineParts(
            description=spec.description(worker_id, role, incarnation),
            limits=worker.limits(),
            policy=spec.policy(role),
            times=EngineTimes(
                worker.latency,
                scale=worker.true_scale,
                noise_sigma=worker.noise_sigma,
                seed=seed,
                young=Young(tokens=worker.young_tokens, each_s=worker.young_s),
            ),
            stretch_s_max=spec.stretch_s_max,
            has_prefix_cache=worker.has_prefix_cache,
            draft_tokens_max=worker.draft_tokens_max,
            host_blocks=worker.host_blocks,
            host_link=worker.host_link,
        )
        engine = Engine(parts, kernel=self.kernel, network=self.network, watcher=self)
        self.engines[worker_id] = engine
        if self._is_shared:
            self._set_speed(engine, worker_id)
        self.report(WorkerJoined(description=engine.description))

    def _fail(self, fault: Fault) -> None:
        engine = self.engines.get(fault.worker_id)
        if engine is None:
            return  # it is down already
        engine.kill()
        self.moves.lost(engine)
        self.lost.append(self.engines.pop(fault.worker_id))
        about = engine.description
        self.report(
            WorkerLost(
                worker_id=about.worker_id, incarnation=about.incarnation, cause="simulated failure"
            )
        )
        self.kernel.at(self.kernel.now_s + fault.down_s, partial(self._join, fault.worker_id))


def _pass_on(command: CancelLeg | RenewHandover | ReleaseHandover, engine: Engine) -> None:
    key = (command.request_id, command.attempt)
    match command:
        case CancelLeg():
            engine.cancel(key)
        case RenewHandover():
            engine.handovers.renew(key)
        case ReleaseHandover():
            engine.handovers.release(key)
