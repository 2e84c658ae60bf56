"""Under `slos-serve` promises are kept, and who was promised nothing is served all the same."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from slos_engine import LIMITS, Asking, SlosEngine

from readahead.core.planning.policies.slos_serve import SlosServe
from readahead.core.promise import Verdict

ROUNDS = 2_500
"""Of one run: in overload those who wait become ever more."""


def engine(seed: int, asking: Asking | None = None, **knobs: float) -> SlosEngine:
    policy = SlosServe(**{"patience_s": 3.0, **knobs})  # type: ignore[arg-type]
    return SlosEngine(policy, random.Random(f"promised/{seed}"), asking or Asking())


def run(one: SlosEngine, rounds: int) -> SlosEngine:
    """So many rounds, then until everybody has ended."""
    while one.rounds < rounds:
        one.step()
    while one.alive() and one.rounds < 2 * rounds + 5_000:
        one.step(asks=False)
    return one


def check_that_nobody_is_dropped(seed: int, rounds: int) -> None:
    """Whoever is accepted keeps his verdict and his memory; everybody ends."""
    done = run(engine(seed, Asking(rate_req_s=12.0), reserve_whole=True), rounds)
    assert done.dropped == 0
    assert not done.alive()
    assert done.ended == done.arrived
    assert done.batch.preemptions > 0, "no best-effort one had to give way: memory is not short"
    assert 0.2 * done.arrived < len(done.accepted) < 0.95 * done.arrived
    assert len(done.late & done.accepted) <= 0.01 * len(done.accepted)


@pytest.mark.parametrize("seed", range(3))
def test_running_requests_are_never_dropped(seed: int) -> None:
    check_that_nobody_is_dropped(seed, ROUNDS)


@pytest.mark.slow
@pytest.mark.parametrize("tens", range(40))
def test_running_requests_are_never_dropped_in_a_million_rounds(tens: int) -> None:
    for seed in range(10 * tens + 100, 10 * tens + 110):
        check_that_nobody_is_dropped(seed, ROUNDS)


def test_promises_are_kept_though_lengths_are_learned() -> None:
    """Memory for expected answers is nearly always enough, and admits no fewer."""
    learned, whole = (run(engine(5, reserve_whole=each), 2_500) for each in (False, True))
    assert learned.dropped <= 0.01 * len(learned.accepted)
    assert len(learned.late & learned.accepted) <= 0.01 * len(learned.accepted)
    assert len(learned.accepted) >= 0.98 * len(whole.accepted)


def test_best_effort_work_hardly_changes_who_is_served_in_time() -> None:
    """Or nearly: the same people come; to one engine come others too, whom nobody can serve in
    time. They fill batches, so that who comes in the midst of one waits longer for its end. Ageing
    is not at work: what it gives to best-effort ones it takes from others."""
    asking = Asking(rate_req_s=6.0)
    kept = []
    for others in (False, True):
        one, next_at = engine(9, asking, patience_s=3600.0), 0.0
        while one.now < 100:
            if others and one.now >= next_at:
                one.arrive(prompt_tokens=700, output_tokens=30, ttft_s=-1.0, pace_tok_s=10.0)
                next_at += 0.2
            one.step()
        kept.append(len(one.accepted - one.late) / (100 * asking.rate_req_s))
        assert (one.batch.recomputed_tokens > 50_000) is others
    assert kept[1] == pytest.approx(kept[0], abs=0.02)


def test_accepting_everybody_keeps_fewer_promises() -> None:
    """In overload the order of due times alone is late with nearly all."""
    asking = Asking(rate_req_s=14.0)
    soft, hard = (run(engine(2, asking, soft_admission=each), 1_000) for each in (True, False))
    attained = [len(each.accepted - each.late) / each.arrived for each in (soft, hard)]
    assert attained[0] > 1.3 * attained[1]


def test_batches_are_as_long_as_the_paces_allow() -> None:
    """More than 512 tokens while all bear 100 ms; one at 50 ms ends that with the next batch."""
    one = engine(0)
    for _ in range(6):
        one.arrive(prompt_tokens=16, output_tokens=60, ttft_s=0.3, pace_tok_s=10.0)
    while any(each.generated < 2 for each in one.alive()):
        one.step(asks=False)
    for _ in range(5):
        one.arrive(prompt_tokens=1500, output_tokens=2, ttft_s=2.0, pace_tok_s=10.0)
    sizes = [one.step(asks=False).work.tokens for _ in range(2)]
    assert min(sizes) > 512
    quick = one.arrive(prompt_tokens=1, output_tokens=40, ttft_s=0.2, pace_tok_s=20.0)
    while not quick.generated:
        one.step(asks=False)
    one.step(asks=False)
    assert one.batch.plan(one.now).work.tokens < 512


def test_the_last_best_effort_one_gives_way_first() -> None:
    """And only as many as the accepted one needs."""
    one = engine(0)
    late = [
        one.arrive(prompt_tokens=160 * 16 - 8, output_tokens=50, ttft_s=-1.0, pace_tok_s=10.0)
        for _ in range(3)
    ]
    while not all(each.generated for each in late):
        one.step(asks=False)
    new = one.arrive(prompt_tokens=400, output_tokens=2, ttft_s=1.0, pace_tok_s=10.0)
    one.step(asks=False)
    assert one.policy.verdict(new) is Verdict.ACCEPTED
    assert [bool(each.blocks) for each in late] == [True, True, False]


def test_a_declined_one_is_accepted_once_there_is_room() -> None:
    """As long as he is in time; without the switch he stays best-effort."""
    for promote, verdict in ((True, Verdict.ACCEPTED), (False, Verdict.BEST_EFFORT)):
        one = engine(0, promote=promote)
        first, second = (
            one.arrive(prompt_tokens=250 * 16, output_tokens=2, ttft_s=ttft_s, pace_tok_s=10.0)
            for ttft_s in (0.6, 1.5)
        )
        one.step(asks=False)
        assert one.policy.verdict(first) is Verdict.ACCEPTED
        assert one.policy.verdict(second) is Verdict.BEST_EFFORT
        while not first.is_ended:
            one.step(asks=False)
        one.step(asks=False)
        assert one.policy.verdict(second) is verdict
        while one.alive():
            one.step(asks=False)
        assert second.is_ended


def test_rounds_that_give_up_are_counted() -> None:
    """Then the greedy rule decides, and its promises are kept too."""
    done = run(engine(1, steps_max=0, reserve_whole=True), 1_500)
    counts = done.policy.counts
    assert 0 < counts.greedy <= counts.rounds
    assert done.dropped == 0
    assert len(done.late & done.accepted) <= 0.01 * len(done.accepted)
    assert run(engine(1), 1_500).policy.counts.greedy == 0


def test_without_a_model_tokens_alone_decide() -> None:
    """Everybody is accepted, first due first, within the token budget."""
    one = engine(0)
    one.limits = replace(LIMITS, latency=None, batch_tokens_max=100)
    one.__post_init__()
    for ttft_s in (0.5, 0.1):
        one.arrive(prompt_tokens=80, output_tokens=3, ttft_s=ttft_s, pace_tok_s=10.0)
    plan = one.batch.plan(0.0)
    assert [(each.request_id, tokens) for each, tokens in plan.entries] == [("r2", 80), ("r1", 20)]
