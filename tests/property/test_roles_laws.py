"""Laws of elastic roles, against workers and readers that do anything at any moment."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant
from planning_rounds import LIMITS, MODEL, sequence
from router_world import CONFIG, LAWS, World, description

from readahead.core.cluster import Role, WorkerLoad, WorkerView
from readahead.core.config import PlacementConfig
from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G, LatencyModel, iteration_s
from readahead.core.messages import Command, Event, RequestArrived, StepObserved, SubmitLeg
from readahead.core.placement.elastic import Site, choose
from readahead.core.placement.roles import TRUST_S
from readahead.core.planning.batch import Batch
from readahead.core.planning.policies.registry import make_policy
from readahead.core.reading.clock import ReadingClock
from readahead.core.request import Leg, RequestId, WorkerId
from readahead.core.router_state import RouterState

SECONDS = st.floats(0, 30)


@st.composite
def sites(draw: st.DrawFn) -> list[Site]:
    """What a prompt might find, workers in the order of their ids."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        role = draw(st.sampled_from(list(Role)))
        about = description(f"w{number}", role, 1)
        leg = Leg.PREFILL if role is Role.PREFILL and draw(st.booleans()) else Leg.WHOLE
        found.append(
            Site(
                worker=WorkerView(
                    description=about,
                    load=WorkerLoad(running=0, waiting=0, kv_blocks_free=about.kv_blocks),
                    observed_at=0.0,
                    legs=0,
                    committed_tokens=draw(st.integers(0, 1000)),
                    is_draining=False,
                ),
                leg=leg,
                has_room=leg is Leg.WHOLE or draw(st.booleans()),
                queue_s=draw(SECONDS),
                length_s=draw(SECONDS),
                handover_s=draw(SECONDS) if leg is Leg.PREFILL else 0.0,
                chunk_s=draw(SECONDS),
                slack_s=draw(st.just(math.inf) | st.floats(-30, 30)),
            )
        )
    return found


@given(sites())
def test_a_worker_short_of_text_is_spared_if_a_prefill_worker_is_sooner(found: list[Site]) -> None:
    """Where a reader has less left than the prompt's chunk takes, it goes to another worker that
    serves it sooner; the time for which it would have to make way for him counts."""
    site = choose(found)
    if site is None or site.worker.description.role is Role.PREFILL:
        return
    alone_s = site.queue_s + site.length_s
    for other in found:
        if other.worker.description.role is Role.PREFILL:
            other_s = other.queue_s + other.length_s + other.handover_s
            other_s += max(0.0, other.chunk_s - other.slack_s)
            assert alone_s + max(0.0, site.chunk_s - site.slack_s) <= other_s


@given(sites())
def test_a_prompt_goes_to_one_site_that_has_room_or_waits(found: list[Site]) -> None:
    """It waits only for a worker whose first token would come first."""
    site = choose(found)
    soonest = min(each.first_token_s for each in found)
    if site is None:
        waited_for = [each for each in found if each.first_token_s == soonest]
        assert any(not each.has_room for each in waited_for)
    else:
        assert site in found
        assert site.has_room
        assert site.first_token_s == soonest


class ElasticWorld(World):
    """Prompts that go anywhere, and readers whose clocks are kept beside the core's own."""

    def __init__(self) -> None:
        self.latency: LatencyModel | None = None
        super().__init__()
        self.clocks: dict[RequestId, ReadingClock] = {}
        self.observed_at: dict[WorkerId, float] = {}

    def core(self) -> RouterState:
        return RouterState(self.config, latency=self.latency)

    @initialize()
    def start(self) -> None:
        """Nobody is there before the settings are chosen."""

    @initialize(
        keep_queue_s=st.sampled_from([0.0, 0.15, 60.0]),
        chunk_tokens=st.integers(1, 300),
        latency=st.sampled_from([None, LLAMA_3_1_8B_A100_80G]),
        has_prefill=st.booleans(),
    )
    def open(
        self,
        keep_queue_s: float,
        chunk_tokens: int,
        latency: LatencyModel | None,
        has_prefill: bool,
    ) -> None:
        placement = PlacementConfig(
            roles="elastic", keep_queue_s=keep_queue_s, chunk_tokens=chunk_tokens
        )
        self.config, self.latency = replace(CONFIG, placement=placement), latency
        self.state = self.core()
        for name in ["p1", "d1", "d2"][not has_prefill :]:
            self.join(name)

    def may_have(self, role: Role, leg: Leg) -> bool:
        keeps = self.config.placement.keep_queue_s > 0
        if role is Role.PREFILL:
            return leg is Leg.PREFILL or (leg is Leg.WHOLE and keeps)
        return leg is not Leg.PREFILL

    def send(self, event: Event) -> None:
        if isinstance(event, RequestArrived):
            self.clocks[event.request_id] = ReadingClock(pace_tok_s=5.0, commit_s=self.now)
        if isinstance(event, StepObserved):
            self.observed_at[event.worker_id] = self.now
            for made in event.made:
                self.clocks[made.request_id].deliver(made.tokens, now=self.now)
        super().send(event)

    def join(self, name: str) -> None:
        self.observed_at[WorkerId(name)] = self.now
        super().join(name)

    def perform(self, command: Command) -> None:
        if isinstance(command, SubmitLeg) and command.leg is Leg.WHOLE:
            self.spares_the_poor(command)
        super().perform(command)

    def spares_the_poor(self, command: SubmitLeg) -> None:
        """Who is out of text for x seconds keeps a prompt away for at least x more."""
        explanation = self.state.explain(command.request_id)
        assert explanation is not None
        costs = explanation.decisions[-1].costs
        seen_at = max(self.observed_at[command.worker_id], self.now - TRUST_S)
        slacks = [
            self.clocks[leg.request_id].slack_s(seen_at)
            for leg in self.legs.values()
            if leg.worker_id == command.worker_id and self.delivered[leg.request_id]
        ]
        if "soonest" not in explanation.decisions[-1].reason:
            return  # a short prompt, which is no burden
        assert costs[command.worker_id] == min(costs.values())
        assert costs[command.worker_id] >= -min(slacks, default=math.inf) - 1e-9

    @invariant()
    def within_limits(self) -> None:
        for worker_id, about in self.workers.items():
            legs = [leg for leg in self.legs.values() if leg.worker_id == worker_id]
            prompts = [leg for leg in legs if not self.delivered[leg.request_id]]
            if about.role is Role.PREFILL:
                assert len(prompts) <= about.prefill_credits
                legs = [leg for leg in legs if leg.leg is Leg.WHOLE]
            assert len(legs) <= about.requests_max


TestElasticWorld = ElasticWorld.TestCase
TestElasticWorld.settings = settings(LAWS, max_examples=LAWS.max_examples // 2)


@given(
    slack_s=st.floats(-1, 0.2),
    computed=st.integers(0, 30),
    readers=st.integers(1, 3),
)
def test_an_engine_gives_a_prompt_up_within_one_iteration(
    slack_s: float, computed: int, readers: int
) -> None:
    """Once a reader is short of text, the prompt that was begun gets no more than he can wait."""
    batch = Batch(limits=LIMITS, policy=make_policy("readahead", {"sit_out": 0}))
    for number in range(readers):
        reader = sequence(number, prompt_tokens=4)
        reader.computed, reader.generated, reader.blocks = 4, 1, batch.limits.blocks_for(8)
        reader.reads_until = 100.0 + slack_s + number
        batch.take(reader.blocks)
        batch.running.append(reader)
    prompt = sequence(9, prompt_tokens=40, now=99.0)
    prompt.blocks, prompt.computed = batch.limits.blocks_for(40), computed
    batch.take(prompt.blocks)
    batch.running.append(prompt)
    plan = batch.plan(100.0)
    chunk = dict(plan.entries).get(prompt, 0)
    assert len(plan.entries) == readers + (chunk > 0)
    if chunk:
        assert iteration_s(plan.work, model=MODEL) <= slack_s
