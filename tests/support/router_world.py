"""Workers and users that do anything the protocol allows, for laws of the router's core."""

from __future__ import annotations

import os

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad
from readahead.core.config import AdmissionConfig, CoreConfig
from readahead.core.errors import Reason
from readahead.core.messages import (
    CancelLeg,
    Command,
    EndRequest,
    Event,
    LegFailed,
    LegFinished,
    LegJudged,
    LegRefused,
    PrefillFinished,
    ReleaseHandover,
    RenewHandover,
    RequestArrived,
    RequestCancelled,
    StepObserved,
    SubmitLeg,
    TimerFired,
    TokensMade,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
)
from readahead.core.promise import Verdict
from readahead.core.request import FinishReason, Incarnation, Leg, RequestId, Stage, WorkerId
from readahead.core.router_state import RouterState

CONFIG = CoreConfig(
    admission=AdmissionConfig(
        queue_requests_max=5, wait_s_max=20.0, attempts_max=3, best_effort_requests_max=1
    )
)
LOAD = WorkerLoad(running=0, waiting=0, kv_blocks_free=8)
LAWS = settings(
    max_examples=int(os.environ.get("READAHEAD_EXAMPLES", "150")),
    stateful_step_count=50,
    deadline=None,
    phases=[Phase.explicit, Phase.generate] if "READAHEAD_EXAMPLES" in os.environ else list(Phase),
)

Handover = tuple[RequestId, int, WorkerId]


def description(worker_id: str, role: Role, incarnation: int) -> WorkerDescription:
    return WorkerDescription(
        worker_id=WorkerId(worker_id),
        incarnation=Incarnation(str(incarnation)),
        role=role,
        engine="emulated",
        model="m",
        context_tokens_max=4096,
        block_tokens=16,
        kv_blocks=64,
        requests_max=2,
        prefill_credits=2,
        handover_lease_s=6.0,
    )


class World(RuleBasedStateMachine):
    """Workers and users that do anything the protocol allows, at any moment."""

    config = CONFIG

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = self.core()
        self.log: list[tuple[float, Event]] = []
        self.trace: list[list[Command]] = []
        self.workers: dict[WorkerId, WorkerDescription] = {}
        self.draining: set[WorkerId] = set()
        self.legs: dict[tuple[RequestId, int], SubmitLeg] = {}
        self.past_legs: list[SubmitLeg] = []
        self.tried: set[tuple[RequestId, int]] = set()
        self.held: dict[Handover, float] = {}
        self.live: set[RequestId] = set()
        self.delivered: dict[RequestId, int] = {}
        self.ends: dict[RequestId, EndRequest] = {}
        self.arrivals = 0
        self.incarnations = 0

    def core(self) -> RouterState:
        """A fresh one; two that are told the same say the same."""
        return RouterState(self.config)

    def send(self, event: Event) -> None:
        self.log.append((self.now, event))
        commands = self.state.handle(event, now=self.now)
        self.trace.append(commands)
        for command in commands:
            self.perform(command)

    def perform(self, command: Command) -> None:
        request_id = command.request_id
        match command:
            case SubmitLeg():
                assert command.worker_id in self.workers, "placed on a lost worker"
                assert command.worker_id not in self.draining, "placed on a draining worker"
                assert request_id in self.live
                assert (request_id, command.attempt) not in self.legs
                role = self.workers[command.worker_id].role
                assert self.may_have(role, command.leg)
                is_new = (request_id, command.attempt) not in self.tried
                self.tried.add((request_id, command.attempt))
                assert is_new == (command.leg is not Leg.DECODE), "a try's number was used again"
                if command.leg is Leg.DECODE:
                    assert any(key[:2] == (request_id, command.attempt) for key in self.held)
                self.legs[request_id, command.attempt] = command
            case CancelLeg():
                leg = self.legs.pop((request_id, command.attempt), None)
                assert leg is None or leg.worker_id == command.worker_id
                if leg is not None and leg.leg is Leg.PREFILL:  # the cancel came too late
                    self.held[request_id, command.attempt, command.worker_id] = self.now
            case ReleaseHandover():
                self.held.pop((request_id, command.attempt, command.worker_id), None)
            case RenewHandover():
                self.held[request_id, command.attempt, command.worker_id] = self.now
            case EndRequest():
                assert request_id in self.live, "ended twice"
                assert (command.stage is Stage.FINISHED) == (command.reason is None)
                self.live.remove(request_id)
                self.ends[request_id] = command

    def may_have(self, role: Role, leg: Leg) -> bool:
        """Whether a worker of this role may be given such a leg."""
        return (leg is Leg.PREFILL) == (role is Role.PREFILL)

    def pick(self, data: st.DataObject, *kinds: Leg) -> SubmitLeg:
        legs = [leg for leg in self.legs.values() if leg.leg in kinds]
        return data.draw(st.sampled_from(legs))

    def has(self, *kinds: Leg) -> bool:
        return any(leg.leg in kinds for leg in self.legs.values())

    def close(self, leg: SubmitLeg) -> None:
        del self.legs[leg.request_id, leg.attempt]
        self.past_legs.append(leg)

    def drop_source(self, leg: SubmitLeg) -> None:
        self.held = {k: at for k, at in self.held.items() if k[:2] != (leg.request_id, leg.attempt)}

    @rule(
        prompt_tokens=st.integers(1, 200),
        output_tokens=st.integers(1, 50),
        patience=st.none() | st.floats(0.1, 60),
    )
    def arrive(self, prompt_tokens: int, output_tokens: int, patience: float | None) -> None:
        self.arrive_now(prompt_tokens, output_tokens, patience)

    def arrive_now(self, prompt_tokens: int, output_tokens: int, patience: float | None) -> None:
        self.arrivals += 1
        request_id = RequestId(f"r{self.arrivals}")
        self.live.add(request_id)
        self.delivered[request_id] = 0
        self.send(
            RequestArrived(
                request_id=request_id,
                prompt_tokens=prompt_tokens,
                output_tokens_max=output_tokens,
                pace_tok_s=5.0,
                deadline=None if patience is None else self.now + patience,
            )
        )

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.live)))
        self.send(RequestCancelled(request_id=request_id))
        assert self.ends[request_id].stage is Stage.CANCELLED

    @initialize()
    def start(self) -> None:
        for name in ("p1", "d1"):
            self.join(name)

    @rule(name=st.sampled_from(["p1", "p2", "d1", "d2", "d3"]))
    def rejoin(self, name: str) -> None:
        self.join(name)

    def join(self, name: str) -> None:
        self.incarnations += 1
        worker_id = WorkerId(name)
        role = Role.PREFILL if name.startswith("p") else Role.DECODE
        self.forget(worker_id)
        self.workers[worker_id] = description(name, role, self.incarnations)
        self.draining.discard(worker_id)
        self.send(WorkerJoined(description=self.workers[worker_id]))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), is_drained=st.booleans(), is_stale=st.booleans())
    def leave(self, data: st.DataObject, is_drained: bool, is_stale: bool) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.workers)))
        incarnation = self.workers[worker_id].incarnation
        if is_stale:
            stale = Incarnation("stale")
            self.send(WorkerLost(worker_id=worker_id, incarnation=stale, cause="late news"))
            assert not self.trace[-1]
        elif is_drained:
            self.draining.add(worker_id)
            self.send(WorkerDrained(worker_id=worker_id, incarnation=incarnation))
        else:
            self.forget(worker_id)
            self.send(WorkerLost(worker_id=worker_id, incarnation=incarnation, cause="killed"))

    def forget(self, worker_id: WorkerId) -> None:
        self.workers.pop(worker_id, None)
        self.draining.discard(worker_id)
        self.legs = {key: leg for key, leg in self.legs.items() if leg.worker_id != worker_id}
        self.held = {key: at for key, at in self.held.items() if key[2] != worker_id}

    @precondition(lambda self: self.has(Leg.PREFILL))
    @rule(data=st.data())
    def finish_prefill(self, data: st.DataObject) -> None:
        leg = self.pick(data, Leg.PREFILL)
        self.close(leg)
        self.held[leg.request_id, leg.attempt, leg.worker_id] = self.now
        self.send(
            PrefillFinished(request_id=leg.request_id, attempt=leg.attempt, worker_id=leg.worker_id)
        )

    @precondition(lambda self: self.legs)
    @rule(data=st.data(), reason=st.sampled_from([Reason.OVERLOADED, Reason.CONTEXT_TOO_LONG]))
    def refuse(self, data: st.DataObject, reason: Reason) -> None:
        leg = self.pick(data, *Leg)
        if self.delivered[leg.request_id]:
            return
        self.close(leg)
        self.send(
            LegRefused(
                request_id=leg.request_id,
                attempt=leg.attempt,
                leg=leg.leg,
                worker_id=leg.worker_id,
                reason=reason,
                message="no",
            )
        )
        assert (reason is Reason.OVERLOADED) or leg.request_id not in self.live

    @precondition(lambda self: self.has(Leg.DECODE, Leg.WHOLE))
    @rule(data=st.data(), tokens=st.integers(1, 5), is_last=st.booleans())
    def make_tokens(self, data: st.DataObject, tokens: int, is_last: bool) -> None:
        leg = self.pick(data, Leg.DECODE, Leg.WHOLE)
        self.drop_source(leg)
        self.delivered[leg.request_id] += tokens
        made = TokensMade(request_id=leg.request_id, attempt=leg.attempt, tokens=tokens)
        incarnation = self.workers[leg.worker_id].incarnation
        self.send(
            StepObserved(worker_id=leg.worker_id, incarnation=incarnation, load=LOAD, made=(made,))
        )
        if is_last:
            self.close(leg)
            self.send(
                LegFinished(
                    request_id=leg.request_id,
                    attempt=leg.attempt,
                    worker_id=leg.worker_id,
                    finish_reason=FinishReason.LENGTH,
                )
            )
            assert self.ends[leg.request_id].stage is Stage.FINISHED

    @precondition(lambda self: self.legs)
    @rule(data=st.data(), verdict=st.sampled_from([Verdict.ACCEPTED, Verdict.BEST_EFFORT]))
    def judge(self, data: st.DataObject, verdict: Verdict) -> None:
        """A planner decides; one who is declined too much is told when to come back."""
        leg = self.pick(data, *Leg)
        request_id = leg.request_id
        self.send(
            LegJudged(
                request_id=request_id,
                attempt=leg.attempt,
                worker_id=leg.worker_id,
                verdict=verdict,
            )
        )
        if request_id not in self.live:
            assert self.ends[request_id].reason is Reason.OVERLOADED
            assert self.ends[request_id].retry_after_s is not None
            assert verdict is Verdict.BEST_EFFORT
            assert not self.delivered[request_id]
            assert (request_id, leg.attempt) not in self.legs

    @precondition(lambda self: self.legs)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        leg = self.pick(data, *Leg)
        self.close(leg)
        self.send(
            LegFailed(
                request_id=leg.request_id,
                attempt=leg.attempt,
                worker_id=leg.worker_id,
                reason=Reason.ENGINE_FAILED,
                message="broke",
            )
        )
        if self.delivered[leg.request_id]:
            assert self.ends[leg.request_id].reason is Reason.STREAM_BROKEN

    @precondition(lambda self: self.past_legs)
    @rule(data=st.data())
    def say_it_again(self, data: st.DataObject) -> None:
        """News of a leg that is over changes nothing but to free a late KV."""
        leg = data.draw(st.sampled_from(self.past_legs))
        before = self.state.statistics()
        request_id, attempt, worker_id = leg.request_id, leg.attempt, leg.worker_id
        if (request_id, attempt) in self.legs:
            return
        self.send(
            LegFinished(
                request_id=request_id,
                attempt=attempt,
                worker_id=worker_id,
                finish_reason=FinishReason.STOP,
            )
        )
        assert not self.trace[-1]
        if not any(key[:2] == (request_id, attempt) for key in self.held):
            self.send(PrefillFinished(request_id=request_id, attempt=attempt, worker_id=worker_id))
            release = ReleaseHandover(request_id=request_id, attempt=attempt, worker_id=worker_id)
            assert self.trace[-1] == [release]
        assert self.state.statistics() == before

    @rule(dt=st.floats(0.01, 8))
    def pass_time(self, dt: float) -> None:
        self.wait_until(self.now + dt)

    def wait_until(self, until: float) -> None:
        while (due := self.state.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.send(TimerFired())
        self.now = until

    @invariant()
    def sound(self) -> None:
        self.state.check()
        by_stage = self.state.statistics().by_stage
        assert sum(by_stage.values()) == len(self.live), "requests are conserved"
        assert set(self.ends) | self.live == {RequestId(f"r{n + 1}") for n in range(self.arrivals)}
        for request_id, _ in self.legs:
            assert request_id in self.live, "a leg of an ended request was not cancelled"

    @invariant()
    def within_limits(self) -> None:
        for worker_id, about in self.workers.items():
            legs = [leg for leg in self.legs.values() if leg.worker_id == worker_id]
            limit = about.prefill_credits if about.role is Role.PREFILL else about.requests_max
            assert len(legs) <= limit

    @invariant()
    def held_kv_has_an_owner(self) -> None:
        for request_id, attempt, worker_id in self.held:
            assert request_id in self.live, "KV of an ended request was not released"
            age_s = self.now - self.held[request_id, attempt, worker_id]
            lease_s = self.workers[worker_id].handover_lease_s
            assert age_s < lease_s + 1e-9, "a lease ran out"

    def teardown(self) -> None:
        for request_id in sorted(self.live):
            self.send(RequestCancelled(request_id=request_id))
        assert not self.live
        assert not self.legs
        assert not self.held
        assert self.state.next_deadline() is None or all(
            count == 0 for count in self.state.statistics().by_stage.values()
        )
        again = self.core()
        replayed = [again.handle(event, now=now) for now, event in self.log]
        assert replayed == self.trace, "a replayed log gives the same commands"
