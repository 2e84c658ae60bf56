"""Laws of parking: who gives up memory, who gets it back, and that nobody is let down by it."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parking_rounds import LIMITS, ParkingRounds
from planning_rounds import MODEL, sequence

from readahead.core.planning.batch import Batch
from readahead.core.planning.chunks import WorkSum, prefill_s
from readahead.core.planning.parking import AHEAD_TOKENS, Moves, SolventParking
from readahead.core.planning.policies.readahead import Readahead
from readahead.core.planning.policy import Choice, EngineView, HostRoom, Park
from readahead.core.planning.sequence import Sequence

NOW = 100.0
PARKING = SolventParking(bytes_per_s=1e9, margin_s=0.25, dwell_s=0.5, share_max=1.0, load_max=0.9)
SLOW_LINK = replace(PARKING, bytes_per_s=1e6)
"""On which it is always cheaper to compute again."""


@st.composite
def _sequences(draw: st.DrawFn, most: int, *, state: str) -> list[Sequence]:
    found = []
    for number in range(draw(st.integers(0, most))):
        one = sequence(number, prompt_tokens=draw(st.integers(1, 30)), pace_tok_s=5.0)
        one.reads_until = NOW + draw(st.floats(-2, 8) | st.floats(0.5, 1.2))
        if state != "waiting":
            one.generated = draw(st.integers(1, 20))
            one.moved_at = NOW - draw(st.floats(0, 2))
        if state == "running":
            one.computed = one.known - 1 if draw(st.integers(0, 4)) else one.prompt_tokens // 2
            one.blocks = max(1, LIMITS.blocks_for(one.computed))
        one.is_copied = state == "parked" and draw(st.booleans())
        found.append(one)
    return found


@st.composite
def views(draw: st.DrawFn) -> EngineView:
    """Whatever an engine may be in, memory for everybody or for hardly anyone."""
    return EngineView(
        limits=replace(LIMITS, kv_blocks=draw(st.integers(10, 80))),
        blocks_free=draw(st.integers(0, 3) | st.integers(0, 40)),
        running=draw(_sequences(8, state="running")),
        waiting=draw(_sequences(6, state="waiting")),
        pulling=draw(st.integers(0, 3)),
        parked=draw(_sequences(5, state="parked")),
        host=HostRoom(
            blocks_free=draw(st.integers(0, 40)),
            block_bytes=1_000_000,
            blocks_coming=draw(st.just(0) | st.integers(0, 8)),
        ),
    )


def decode_s(view: EngineView) -> float:
    decoding = [s for s in view.running if s.missing == 1]
    work = WorkSum(
        tokens=len(decoding),
        requests=len(decoding),
        past_tokens=sum(s.computed for s in decoding),
    )
    return work.seconds(MODEL) if decoding else 0.0


def must_resume(view: EngineView, parking: SolventParking) -> list[Sequence]:
    """Those who would run dry if they stayed, first due first."""
    seconds = decode_s(view)
    due = [
        s
        for s in view.parked
        if s.slack_s(NOW) <= parking.back_s(view, s, iteration_s=seconds) + parking.margin_s
    ]
    return sorted(due, key=lambda s: s.due_at)


def growth(view: EngineView) -> int:
    return sum(
        max(0, view.limits.blocks_for(s.computed + AHEAD_TOKENS) - s.blocks) for s in view.running
    )


def blocks_back(view: EngineView, one: Sequence) -> int:
    return min(view.limits.blocks_for(one.known + AHEAD_TOKENS), view.limits.kv_blocks)


@given(views(), st.sampled_from([PARKING, SLOW_LINK]))
def test_only_those_are_parked_who_can_stay_away(view: EngineView, parking: SolventParking) -> None:
    """Slack beyond the round trip, the margin and the dwell; and no move shortly before."""
    assert view.host is not None
    for one, is_copied in parking.moves(view, NOW).park:
        assert one in view.running
        assert one.missing == 1
        blocks = view.limits.blocks_for(one.known)
        copy_s = blocks * view.host.block_bytes / parking.bytes_per_s
        trip_s = 2 * copy_s if is_copied else prefill_s(0, one.known, MODEL)
        assert one.slack_s(NOW) > trip_s + parking.margin_s + parking.dwell_s
        assert NOW - one.moved_at >= parking.dwell_s
        assert is_copied == (2 * copy_s <= prefill_s(0, one.known, MODEL))


@given(views())
def test_caps_hold(view: EngineView) -> None:
    """Of what is parked altogether, and of what the host has room for."""
    assert view.host is not None
    parks = PARKING.moves(view, NOW).park
    before = sum(view.limits.blocks_for(s.known) for s in view.parked)
    added = sum(view.limits.blocks_for(s.known) for s, _ in parks)
    copied = sum(view.limits.blocks_for(s.known) for s, is_copied in parks if is_copied)
    assert not parks or before + added <= PARKING.share_max * view.limits.kv_blocks
    assert copied <= view.host.blocks_free


@given(views())
def test_nobody_is_parked_for_nothing(view: EngineView) -> None:
    """Where those that wait, come back and grow have their blocks, nobody has to go; and nobody
    more than needed."""
    roomy = replace(view.limits, batch_tokens_max=10_000, requests_max=100)
    view = replace(view, limits=roomy)
    assert view.host is not None
    parks = PARKING.moves(view, NOW).park
    wanted = (
        growth(view)
        + sum(blocks_back(view, s) for s in must_resume(view, PARKING))
        + sum(view.limits.blocks_for(s.known) for s in view.waiting)
    )
    short = wanted - view.blocks_free - view.host.blocks_coming
    assert not parks or short > 0
    assert sum(s.blocks for s, _ in parks[:-1]) < max(short, 1)


@given(views())
def test_insolvent_engine_parks_nobody_for_those_who_wait(view: EngineView) -> None:
    """Where readers need more than the engine's time, memory is lent only to those it has."""
    assert view.host is not None
    greedy = replace(PARKING, load_max=0.0)
    kept = growth(view) + sum(blocks_back(view, s) for s in must_resume(view, greedy))
    assert not greedy.moves(view, NOW).park or kept > view.blocks_free + view.host.blocks_coming


@pytest.mark.parametrize(("slack_s", "parked"), [(4.0, 0), (60.0, 1)])
def test_a_backlog_may_last_as_long_as_readers_have_text(slack_s: float, parked: int) -> None:
    """Prompts of 6.6 s: too much for readers of 4 s, and little for those of a minute."""
    running = []
    for number in range(3):
        one = sequence(number, prompt_tokens=8, pace_tok_s=0.1)
        one.generated, one.computed, one.blocks, one.reads_until = 1, 8, 3, NOW + slack_s
        running.append(one)
    waiting = [sequence(9 + n, prompt_tokens=60, pace_tok_s=0.1) for n in range(100)]
    assert sum(prefill_s(0, s.missing, MODEL) for s in waiting) == pytest.approx(6.6, abs=0.1)
    view = EngineView(
        limits=replace(LIMITS, kv_blocks=200, requests_max=200),
        blocks_free=12,
        running=running,
        waiting=waiting,
        pulling=0,
        host=HostRoom(blocks_free=99, block_bytes=1),
    )
    assert len(PARKING.moves(view, NOW).park) == parked


@given(views())
def test_who_runs_dry_comes_back_first_due_first(view: EngineView) -> None:
    """One who must and does not is one who cannot have his blocks with those due before him; and
    prompts leave him what is free."""
    moves = PARKING.moves(view, NOW)
    due = must_resume(view, PARKING)
    back = [s for s in moves.resume if s in due]
    assert back == due[: len(back)]
    if len(back) < len(due):
        needed = sum(blocks_back(view, s) for s in due[: len(back) + 1])
        assert needed > view.blocks_free or len(back) >= view.room
        assert moves.reserved_blocks == min(needed + growth(view), view.blocks_free)


@given(views())
def test_those_who_resume_fit(view: EngineView) -> None:
    """In blocks that are free now, and in seats."""
    moves = PARKING.moves(view, NOW)
    assert len(set(moves.resume)) == len(moves.resume) <= max(0, view.room)
    assert all(one in view.parked for one in moves.resume)
    assert sum(blocks_back(view, one) for one in moves.resume) <= view.blocks_free
    assert 0 <= moves.reserved_blocks <= view.blocks_free


@given(views())
def test_free_memory_is_used(view: EngineView) -> None:
    """Nobody stays parked while there is room for him and nobody waits for it."""
    moves = PARKING.moves(replace(view, waiting=[]), NOW)
    if view.parked and not moves.resume and view.room > 0:
        first = min(view.parked, key=lambda s: s.due_at)
        due = must_resume(view, PARKING)
        needed = blocks_back(view, due[0]) if due else blocks_back(view, first) + growth(view)
        assert needed > view.blocks_free


@given(views())
def test_richest_go_first(view: EngineView) -> None:
    """Of those who can stay away, and whom no cap keeps."""
    assert view.host is not None
    view = replace(view, host=replace(view.host, blocks_free=1000), parked=[])
    parks = [s for s, _ in replace(PARKING, share_max=100).moves(view, NOW).park]
    seconds = decode_s(view)
    for one in view.running if parks else ():
        away_s = PARKING.away_s(view, one, iteration_s=seconds)
        can_go = one.missing == 1 and NOW - one.moved_at >= PARKING.dwell_s
        can_go &= one.slack_s(NOW) > away_s + PARKING.margin_s + PARKING.dwell_s
        assert one in parks or not can_go or one.reads_until <= parks[-1].reads_until


def test_engine_that_cannot_park_does_not() -> None:
    """Nor does one that cannot tell what a move costs."""
    view = EngineView(limits=LIMITS, blocks_free=0, running=[], waiting=[], pulling=0)
    assert PARKING.moves(view, NOW) == Moves()
    rich = sequence(1, prompt_tokens=8)
    rich.generated, rich.computed, rich.blocks, rich.reads_until = 1, 8, 2, NOW + 50
    view = replace(view, running=[rich], waiting=[sequence(2, prompt_tokens=8)])
    assert PARKING.moves(view, NOW) == Moves()
    hosted = replace(view, host=HostRoom(blocks_free=9, block_bytes=1))
    assert PARKING.moves(hosted, NOW).park == (Park(rich, True),)
    blind = replace(hosted, limits=replace(LIMITS, latency=None))
    assert PARKING.moves(blind, NOW) == Moves()


def test_as_many_are_parked_as_are_needed() -> None:
    """Six readers of three blocks each make way for a prompt of four: two go, the richest."""
    running = []
    for number in range(6):
        one = sequence(number, prompt_tokens=8)
        one.generated, one.computed, one.blocks, one.reads_until = 1, 8, 3, NOW + 20 + number
        running.append(one)
    view = EngineView(
        limits=LIMITS,
        blocks_free=0,
        running=running,
        waiting=[sequence(9, prompt_tokens=16)],
        pulling=0,
        host=HostRoom(blocks_free=99, block_bytes=1),
    )
    assert [s for s, _ in PARKING.moves(view, NOW).park] == [running[5], running[4]]


def test_batch_refuses_to_park() -> None:
    """It has no host memory, so a policy that parks in it is in error."""

    class Parks:
        name = "parks"

        def choose(self, view: EngineView, now: float) -> Choice:
            return Choice(entries=[], park=[Park(sequence(1, prompt_tokens=1), True)])

    with pytest.raises(ValueError, match="policy parks parks, and here is nowhere to park"):
        Batch(limits=LIMITS, policy=Parks()).plan(0.0)


KNOBS = {"park": True, "park_dwell_s": 0.5, "park_margin_s": 0.5, "park_share": 3.0, "rich_s": 0.5}


@cache
def burst(seed: int, *, prompt_tokens: int = 20, **knobs: float) -> ParkingRounds:
    """Twelve readers within a third of a second, in memory for four of them; all are served."""
    rng = random.Random(f"burst/{seed}")
    rounds = ParkingRounds(knobs={**KNOBS, **knobs}, limits=replace(LIMITS, kv_blocks=120))
    pending = sorted(rng.uniform(0, 0.3) for _ in range(12))
    for number in range(100_000):
        while pending and pending[0] <= rounds.now:
            prompt, answer = prompt_tokens + rng.randint(0, 20), rng.randint(80, 120)
            one = sequence(number, prompt_tokens=prompt, output_tokens=answer, now=pending.pop(0))
            rounds.arrive(one)
        if not rounds.everybody():
            if not pending:
                return rounds
            rounds.now = pending[0]
            continue
        rounds.round()
        rounds.batch.check(held_blocks=0)
    raise AssertionError("not over")


def worst_idle_s(rounds: ParkingRounds) -> float:
    return max(clock.idle_s(rounds.now) for clock in rounds.clocks.values())


@pytest.mark.parametrize("seed", range(4))
def test_nobody_runs_dry_while_parked(seed: int) -> None:
    """All are served to the end; who is parked has something to read until he resumes."""
    rounds = burst(seed)
    assert any(what == "park" for _, _, what in rounds.parker.moves)
    assert not rounds.ran_dry


@pytest.mark.parametrize("seed", range(4))
def test_moves_do_not_thrash(seed: int) -> None:
    """From a resume to the next park of the same reader it takes the dwell time."""
    moves = burst(seed).parker.moves
    last: dict[Sequence, float] = {}
    for now, one, what in moves:
        if what == "park" and one in last:
            assert now - last[one] >= KNOBS["park_dwell_s"]
        last[one] = now


@pytest.mark.parametrize("seed", range(4))
def test_parking_shortens_the_longest_wait(seed: int) -> None:
    """Same arrivals, same engine: those who come last do not wait for the first to be done."""
    with_parking = worst_idle_s(burst(seed, prompt_tokens=80))
    without = worst_idle_s(burst(seed, prompt_tokens=80, park=False))
    assert with_parking < without


@pytest.mark.parametrize("seed", range(4))
def test_who_is_parked_is_not_computed_again(seed: int) -> None:
    """Where answers outgrow memory, parks take the place of most preemptions, and all are done
    sooner."""
    with_parking, without = burst(seed), burst(seed, park=False)
    assert with_parking.batch.recomputed_tokens < 0.5 * without.batch.recomputed_tokens
    assert with_parking.now < without.now


def test_parking_is_off_unless_asked_for() -> None:
    """By default, and without a place to park in, the choice is the same as ever."""
    assert not Readahead().park
    view = EngineView(
        limits=LIMITS,
        blocks_free=0,
        running=[],
        waiting=[sequence(1, prompt_tokens=8)],
        pulling=0,
        host=HostRoom(blocks_free=9, block_bytes=1),
    )
    nowhere = replace(view, host=None)
    assert Readahead().choose(view, NOW) == Readahead().choose(nowhere, NOW)
    assert Readahead(park=True).choose(nowhere, NOW) == Readahead().choose(nowhere, NOW)
