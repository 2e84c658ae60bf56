"""Users come, read, go on and leave in virtual time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from small_clusters import MODEL, PATIENT, Kept, chunked, one_turn

from readahead.core.reading.timeline import Outcome
from readahead.core.request import WorkerId
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.faults import Fault, fault_plan
from readahead.sim.world import World
from readahead.workload.reader import Reader
from readahead.workload.session import Pause, Segment, Session, Turn

WORKER = WorkerSpec(latency=MODEL, context_tokens_max=4096)
SPEC = ClusterSpec(policy=chunked, decode_worker=WORKER, core=PATIENT)


def run(spec: ClusterSpec, *sessions: Session, faults: tuple[Fault, ...] = ()) -> Kept:
    kept = Kept()
    World(spec, sessions, sink=kept, faults=faults).run()
    return kept


def with_reader(session: Session, **habits: float) -> Session:
    return replace(session, reader=Reader(pace_tok_s=5.0, **habits))  # type: ignore[arg-type]


def test_an_impatient_reader_leaves_after_his_patience() -> None:
    # The first text is due 0.2 s after he asked; the prompt takes longer than his patience.
    slow = replace(SPEC, decode_worker=replace(WORKER, true_scale=100.0))
    kept = run(slow, with_reader(one_turn(0, 1.0, 1000, 10), patience_s=3.0))
    (request,) = kept.requests
    assert request.outcome is Outcome.CANCELLED
    assert request.ended_s == pytest.approx(1.0 + 0.2 + 3.0)
    assert len(request.token_times_s) == 0


def test_a_reader_who_has_text_does_not_leave() -> None:
    kept = run(SPEC, with_reader(one_turn(0, 1.0, 100, 200), patience_s=0.5))
    assert [request.outcome for request in kept.requests] == [Outcome.FINISHED]


def test_who_reads_twenty_tokens_leaves_when_he_comes_to_the_twentieth() -> None:
    long = one_turn(0, 0.0, 100, 2000)
    kept = run(SPEC, with_reader(long, leaves_after_tokens=20))
    (request,) = kept.requests
    assert request.outcome is Outcome.CANCELLED
    # The first text is due at 0.2 s and there by then; 19 more take 0.2 s each.
    assert request.ended_s == pytest.approx(0.2 + 19 * 0.2)
    assert request.token_times_s[-1] <= request.ended_s
    made_by_then = (request.ended_s - request.token_times_s[0]) / 0.01
    assert len(request.token_times_s) == pytest.approx(made_by_then, rel=0.2)


@pytest.mark.parametrize("pause_from", list(Pause))
def test_the_next_turn_waits_for_the_reader_or_for_the_answer(pause_from: Pause) -> None:
    turns = (
        Turn(segments=(Segment("a", 100),), output_tokens=50),
        Turn(
            segments=(Segment("b", 10),),
            output_tokens=5,
            carries_context=True,
            pause_s=2.0,
            pause_from=pause_from,
        ),
    )
    kept = run(SPEC, replace(one_turn(0, 0.0, 1, 1), turns=turns))
    first, second = kept.requests
    assert second.prompt_tokens == 100 + 50 + 10
    read_s = 0.2 + 50 / 5.0
    after_s = first.ended_s if pause_from is Pause.ENDED else read_s
    assert second.arrival_s == pytest.approx(after_s + 2.0)


def test_a_closed_loop_keeps_so_many_sessions_there() -> None:
    class Loop(list[Session]):
        concurrency = 2

    kept = Kept()
    World(SPEC, Loop(one_turn(n, 0.0, 100, 20) for n in range(6)), sink=kept).run()
    assert len(kept.requests) == 6
    for request in kept.requests:
        others = [r for r in kept.requests if r is not request]
        there = sum(r.arrival_s <= request.arrival_s < r.ended_s for r in others)
        assert there <= 1


def test_sessions_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="session s1 arrives at 1"):
        run(SPEC, one_turn(0, 2.0, 10, 1), one_turn(1, 1.0, 10, 1))


def test_a_lost_worker_breaks_streams_and_its_queue_goes_elsewhere() -> None:
    two = replace(SPEC, decode=2)
    sessions = [one_turn(n, 0.0, 100, 500) for n in range(4)]
    fault = Fault(worker_id=WorkerId("decode-00"), at_s=1.0, down_s=1.0)
    kept = run(two, *sessions, one_turn(9, 1.5, 100, 5), faults=(fault,))
    outcomes = {request.request_id: request.outcome for request in kept.requests}
    assert sorted(outcomes.values()) == ["failed", "failed", "finished", "finished", "finished"]
    broken = [r for r in kept.requests if r.outcome is Outcome.FAILED]
    assert all(r.ended_s == 1.0 and r.token_times_s[-1] <= 1.0 for r in broken)
    assert all("STREAM_BROKEN" in (r.error or "") for r in broken)


def test_an_unknown_worker_cannot_fail() -> None:
    fault = Fault(worker_id=WorkerId("nobody"), at_s=1.0, down_s=1.0)
    with pytest.raises(ValueError, match="no worker nobody"):
        run(SPEC, faults=(fault,))


def test_a_fault_plan_follows_its_seed_and_each_worker_is_down_before_it_fails_again() -> None:
    names = [WorkerId(name) for name in "ab"]

    def made(seed: int) -> tuple[Fault, ...]:
        return fault_plan(names, seed=seed, until_s=500.0, mean_up_s=20.0, mean_down_s=5.0)

    assert made(1) == made(1) != made(2)
    for name in names:
        own = [fault for fault in made(1) if fault.worker_id == name]
        assert 10 < len(own) < 40
        assert all(b.at_s >= a.at_s + a.down_s for a, b in itertools.pairwise(own))


def test_a_shared_prefix_is_computed_once_where_it_is_kept() -> None:
    kept_kv = replace(SPEC, decode_worker=replace(WORKER, has_prefix_cache=True))
    turn = Turn(segments=(Segment("system", 1024), Segment("own", 32)), output_tokens=2)
    sessions = [
        replace(one_turn(n, 1.0 * n, 1, 1), turns=(turn,), session_id=f"p{n}") for n in (0, 1)
    ]
    first, second = run(kept_kv, *sessions).requests
    cold_s, warm_s = (r.token_times_s[0] - r.arrival_s for r in (first, second))
    assert warm_s < cold_s / 5
    again = run(SPEC, *sessions).requests[1]
    assert again.token_times_s[0] - again.arrival_s == pytest.approx(cold_s)
