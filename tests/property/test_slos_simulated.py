"""What scenarios promise reaches the engines of the simulator, stage by stage."""

from __future__ import annotations

import pytest
from small_clusters import MODEL, PATIENT, Kept, one_turn

from readahead.core.planning.policies.slos_serve import SlosServe
from readahead.core.planning.policy import Plan
from readahead.core.planning.sequence import Sequence
from readahead.sim.cluster import ClusterSpec, WorkerSpec, zero_load_ttft_s
from readahead.sim.engine import Engine
from readahead.sim.run import simulate
from readahead.sim.settings import ClusterSettings
from readahead.sim.stretch import Stretch
from readahead.sim.world import World
from readahead.workload.plan import plan
from readahead.workload.session import Segment, Session, Turn
from readahead.workload.slo import SloClass
from readahead.workload.spec import workload_spec

THINKS = SloClass(name="thinks", ttft_slowdown=3.0, tpot_s=0.1, think_tpot_s=0.05)
WORKER = WorkerSpec(latency=MODEL, context_tokens_max=4096, batch_tokens_max=1024)


class Watched(Kept):
    """Notes what engines believe after each stretch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float, float]] = []
        """Tokens made, pace, and when the next one is due."""

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        super().iterated(engine, plan, stretch)
        for sequence, _ in plan.entries:
            self.seen.append(_seen(sequence))


def _seen(sequence: Sequence) -> tuple[int, float, float]:
    return (sequence.generated, sequence.pace_tok_s, sequence.reads_until)


def spec(**changes: object) -> ClusterSpec:
    fields: dict[str, object] = {"tells_slo": True, "stretch_s_max": 0.2} | changes
    return ClusterSpec(
        policy=lambda _: SlosServe(),
        decode_worker=WORKER,
        core=PATIENT,
        **fields,  # type: ignore[arg-type]
    )


def thinker(slo: SloClass | None) -> Session:
    """40 tokens of thinking, then 30 of an answer."""
    turn = Turn(segments=(Segment("k", 200),), output_tokens=70, thinking_tokens=40, slo=slo)
    base = one_turn(0, 1.0, 200, 70)
    return Session(
        session_id=base.session_id,
        arrival_s=base.arrival_s,
        scenario=base.scenario,
        tenant=base.tenant,
        user=base.user,
        reader=base.reader,
        turns=(turn,),
    )


@pytest.mark.parametrize("stretch_s_max", [1e-9, 0.1, float("inf")])
def test_due_times_follow_the_stages(stretch_s_max: float) -> None:
    """50 ms for each token of the thinking, then 100 ms, from when the first one was due."""
    watched, within = Watched(), spec(stretch_s_max=stretch_s_max)
    World(within, [thinker(THINKS)], sink=watched).run()
    first_due_s = 1.0 + 3.0 * zero_load_ttft_s(within, 200)
    assert watched.seen[-1][0] == 70
    for made, pace_tok_s, due_s in watched.seen:
        thought = min(made, 40)
        assert due_s == pytest.approx(first_due_s + thought * 0.05 + (made - thought) * 0.1)
        assert pace_tok_s == pytest.approx(20.0 if made < 40 else 10.0)


def test_without_a_promise_the_reader_counts() -> None:
    """So it is too where engines are not told of promises."""
    for slo, is_told in ((None, True), (THINKS, False)):
        watched = Watched()
        World(spec(tells_slo=is_told), [thinker(slo)], sink=watched).run()
        assert {pace for _, pace, _ in watched.seen} == {5.0}


def test_the_policy_says_whether_engines_are_told() -> None:
    """Unless the settings do."""
    for policy, given, expected in (
        ("slos-serve", None, True),
        ("slos-serve", False, False),
        ("readahead", None, False),
        ("readahead", True, True),
    ):
        settings = ClusterSettings(policy=policy, tells_slo=given)
        assert settings.spec().tells_slo is expected


@pytest.mark.parametrize(
    "scenario", ["chatbot", "coder", "summarization", "reasoning", "tool-calling", "mixed"]
)
def test_each_scenario_is_served(scenario: str) -> None:
    """At a load far below the capacity nearly all promises are kept."""
    sessions = plan(
        workload_spec(
            {
                "mix": [{"scenario": scenario}],
                "arrivals": {"kind": "poisson", "rate_req_s": 1.0},
                "seed": 3,
                "limits": {"sessions": 12},
            }
        )
    )
    found = simulate(ClusterSettings(policy="slos-serve").spec(), sessions)
    assert set(found.score.outcomes) == {"finished"}
    assert found.score.slo_attainment is not None
    assert found.score.slo_attainment >= 0.9
