"""What the simulator tells its engines of a promise is what live engines are told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_clusters import MODEL, PATIENT, Kept, one_turn

from readahead.core.planning.policies.slos_serve import SlosServe
from readahead.core.planning.policy import Plan
from readahead.core.promise import Promise, PromiseClock, PromisedStage
from readahead.sim.cluster import ClusterSpec, WorkerSpec, zero_load_ttft_s
from readahead.sim.engine import Engine
from readahead.sim.stretch import Stretch
from readahead.sim.world import World
from readahead.workload.session import Segment, Session, Turn
from readahead.workload.slo import SloClass

PROMPT_TOKENS, THINKING_TOKENS, OUTPUT_TOKENS = 200, 15, 30
ARRIVAL_S = 1.0
SPEC = ClusterSpec(
    policy=lambda _: SlosServe(),
    decode_worker=WorkerSpec(latency=MODEL, context_tokens_max=4096, batch_tokens_max=1024),
    core=PATIENT,
    tells_slo=True,
    stretch_s_max=1e-9,  # an iteration each
)


class Seen(Kept):
    """What the engine believes after each iteration: tokens made, pace, the next one's due time."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float, float]] = []

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        super().iterated(engine, plan, stretch)
        for sequence, _ in plan.entries:
            self.seen.append((sequence.generated, sequence.pace_tok_s, sequence.reads_until))


def thinker(slo: SloClass) -> Session:
    base = one_turn(0, ARRIVAL_S, PROMPT_TOKENS, OUTPUT_TOKENS)
    turn = Turn(
        segments=(Segment("k", PROMPT_TOKENS),),
        output_tokens=OUTPUT_TOKENS,
        thinking_tokens=THINKING_TOKENS,
        slo=slo,
    )
    return Session(
        session_id=base.session_id,
        arrival_s=base.arrival_s,
        scenario=base.scenario,
        tenant=base.tenant,
        user=base.user,
        reader=base.reader,
        turns=(turn,),
    )


@settings(max_examples=30, deadline=None)
@given(
    slowdown=st.floats(0.3, 5.0),
    tpot_s=st.floats(0.002, 0.4),
    think_s=st.none() | st.floats(0.002, 0.4),
)
def test_due_times_are_the_same(slowdown: float, tpot_s: float, think_s: float | None) -> None:
    """Token by token, late ones included, over the end of the thinking."""
    slo = SloClass(name="x", ttft_slowdown=slowdown, tpot_s=tpot_s, think_tpot_s=think_s)
    kept = Seen()
    World(SPEC, [thinker(slo)], sink=kept).run()
    [ended] = kept.requests
    stages = [PromisedStage(token_s=tpot_s)]
    if think_s is not None:
        stages.insert(0, PromisedStage(token_s=think_s, tokens=THINKING_TOKENS))
    first_s = slowdown * zero_load_ttft_s(SPEC, PROMPT_TOKENS)
    clock = PromiseClock(Promise(first_token_s=first_s, stages=tuple(stages)), arrived_at=ARRIVAL_S)
    expected = [(clock.token_s, clock.due_s)]
    for at_s in ended.token_times_s:
        clock.deliver(1, now=at_s)
        expected.append((clock.token_s, clock.due_s))
    assert len(expected) == OUTPUT_TOKENS + 1
    assert {made for made, _, _ in kept.seen} >= set(range(1, OUTPUT_TOKENS))
    for made, pace_tok_s, due_at in kept.seen:
        assert (1 / pace_tok_s, due_at) == pytest.approx(expected[made])
