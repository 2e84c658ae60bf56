"""Who moves, by which trigger; and the forecast behind it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad, WorkerView
from readahead.core.config import MigrationConfig
from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G
from readahead.core.live_request import LiveRequest
from readahead.core.placement.decoder import Decoder
from readahead.core.placement.forecast import idle_ahead_s
from readahead.core.placement.least_loaded import place
from readahead.core.placement.migration import MigrationPolicy
from readahead.core.placement.triggers import Move
from readahead.core.pools import Pools
from readahead.core.request import Incarnation, Leg, RequestId, RequestView, Stage, WorkerId

NOW = 100.0
SLOW_S, QUICK_S = 0.5, 0.02
"""Times of a token: half a second is slower than people read, a fiftieth is not."""


def reader(
    name: str,
    *,
    slack_s: float = 0.0,
    context: int = 100,
    moved_at: float = -math.inf,
    is_leaving: bool = False,
) -> RequestView:
    return RequestView(
        request_id=RequestId(name),
        prompt_tokens=context - 50,
        output_tokens_max=1000,
        arrived_at=0.0,
        attempt=1,
        pace_tok_s=5.0,
        tokens_delivered=50,
        delivered_at=NOW,
        reads_until=NOW + slack_s,
        moved_at=moved_at,
        is_movable=not is_leaving,
        is_leaving=is_leaving,
    )


def worker(
    name: str,
    *readers: RequestView,
    token_s: float = QUICK_S,
    is_draining: bool = False,
    waiting: int = 0,
    seats: int = 64,
    is_modelled: bool = False,
) -> Decoder:
    blocks_used = -(-sum(each.context_tokens for each in readers) // 16)
    about = WorkerDescription(
        worker_id=WorkerId(name),
        incarnation=Incarnation("1"),
        role=Role.DECODE,
        engine="emulated",
        model="m",
        context_tokens_max=4096,
        block_tokens=16,
        kv_blocks=200,
        requests_max=seats,
        prefill_credits=2,
        handover_lease_s=30.0,
    )
    view = WorkerView(
        description=about,
        load=WorkerLoad(
            running=len(readers), waiting=waiting, kv_blocks_free=max(0, 200 - blocks_used)
        ),
        observed_at=NOW,
        legs=len(readers),
        committed_tokens=0,
        is_draining=is_draining,
        token_s=token_s,
    )
    latency = LLAMA_3_1_8B_A100_80G if is_modelled else None
    return Decoder(view, legs=readers, latency=latency)


def moves(trigger: str, *decoders: Decoder, **changes: float) -> list[Move]:
    config = replace(MigrationConfig(trigger=trigger), **changes)  # type: ignore[arg-type]
    policy = MigrationPolicy.of(config)
    assert policy is not None
    return policy.choose(decoders, now=NOW)


def who(chosen: list[Move]) -> list[tuple[str, str]]:
    return [(each.request_id, each.target) for each in chosen]


def test_none_is_no_policy() -> None:
    """Nothing is looked at, and no timer runs."""
    assert MigrationPolicy.of(MigrationConfig()) is None


def test_load_moves_the_shortest_from_the_fullest_to_the_freest() -> None:
    """Readers are not asked; nothing moves that would swing back."""
    full = worker("a", reader("long", context=1500), reader("short", context=900, slack_s=-5))
    some, empty = worker("b", reader("other", context=1200)), worker("c")
    (first,) = moves("load", full, some, empty, load_below_tokens=600)
    assert (first.request_id, first.source, first.target) == ("short", "a", "c")
    assert moves("load", some, worker("c"), load_below_tokens=600) == []
    even = worker("d", reader("x", context=1500), reader("y", context=900))
    assert moves("load", full, even, load_below_tokens=600) == []


def test_cover_takes_only_whom_unread_text_hides() -> None:
    """The longer one has text left, the shorter one does not."""
    dry = [reader(name, context=800, slack_s=0.1) for name in ("short", "other")]
    full = worker("a", reader("long", context=1000, slack_s=0.2), *dry)
    chosen = moves("cover", full, worker("b"), load_below_tokens=600, margin_s=0.1)
    assert who(chosen) == [("long", "b")]


def test_need_rescues_the_reader_who_is_out_of_text() -> None:
    """His worker makes two tokens a second, the other fifty."""
    slow = worker("a", reader("dry", slack_s=-1), reader("rich", slack_s=5), token_s=SLOW_S)
    assert who(moves("need", slow, worker("b", reader("z")))) == [("dry", "b")]


def test_need_leaves_a_reader_where_he_is_served() -> None:
    """He waits for his first words, yet they come faster than he reads; or elsewhere is no
    better, or not known."""
    dry = reader("dry", slack_s=-1)
    assert moves("need", worker("a", dry), worker("b")) == []
    assert moves("need", worker("a", dry, token_s=SLOW_S), worker("b", token_s=SLOW_S)) == []
    assert moves("need", worker("a", dry, token_s=SLOW_S), worker("b", token_s=0.0)) == []


def test_need_sees_one_who_gets_nothing() -> None:
    """The worker's steps are quick, but he has been out of its batch for two seconds."""
    starved = replace(reader("dry", slack_s=-1), delivered_at=NOW - 2)
    assert who(moves("need", worker("a", starved), worker("b"))) == [("dry", "b")]


def test_a_move_that_lands_too_late_is_not_made() -> None:
    """The copy takes longer than the forecast reaches."""
    slow = worker("a", reader("dry", slack_s=-1), token_s=SLOW_S)
    assert moves("need", slow, worker("b"), link_bytes_per_s=1e6) == []


def test_what_the_targets_readers_lose_is_counted() -> None:
    """With a model one more slows the target down, and its own readers are on the brink."""
    near = 0.1999  # s per token at 5 tok/s: one more, and all of them wait
    brink = [reader(f"r{n}", slack_s=0.0, context=60) for n in range(40)]
    source = worker("a", reader("dry", slack_s=-1, context=60), token_s=0.215, is_modelled=True)
    assert moves("need", source, worker("b", *brink, token_s=near, is_modelled=True)) == []
    few = worker("b", *brink[:1], token_s=near, is_modelled=True)
    assert who(moves("need", source, few)) == [("dry", "b")]


@pytest.mark.parametrize("trigger", ["load", "cover", "need"])
def test_cooldown_room_and_moves_at_once_bind_each_trigger(trigger: str) -> None:
    """The rules hold whatever the trigger."""
    slack_s = 0.2 if trigger == "cover" else 0.05

    def source(**changes: float) -> Decoder:
        here = [reader(f"r{n}", slack_s=slack_s, context=700, **changes) for n in range(4)]  # type: ignore[arg-type]
        return worker("a", *here, token_s=SLOW_S)

    assert len(moves(trigger, source(), worker("b"))) == 2
    assert len(moves(trigger, source(), worker("b"), moves_per_worker_max=1)) == 1
    assert len(moves(trigger, source(), worker("b"), kv_share_max=0.25)) == 1
    assert moves(trigger, source(), worker("b", seats=0)) == []
    assert moves(trigger, source(), worker("b", is_draining=True)) == []
    assert moves(trigger, source(), worker("b", waiting=1)) == []
    assert moves(trigger, source(moved_at=NOW - 9), worker("b")) == []
    assert moves(trigger, source(moved_at=NOW - 10), worker("b")) != []


@pytest.mark.parametrize("trigger", ["load", "cover", "need"])
def test_a_draining_worker_is_emptied(trigger: str) -> None:
    """Those first whom it does not hurt; with "load" whoever is shortest."""
    draining = worker("a", reader("rich", slack_s=3), is_draining=True)
    assert who(moves(trigger, draining, worker("b"))) == [("rich", "b")]


def test_moves_under_way_are_foreseen() -> None:
    """Who is leaving does not count at the source, nor twice as a move."""
    leaving = reader("gone", context=1600, is_leaving=True)
    here = worker("a", leaving, reader("x", context=800))
    assert here.freeness_tokens() == 200 * 16 - 800
    assert here.moves == 1
    assert [each.request_id for each in here.readers] == ["x"]


@given(
    slack_s=st.floats(-10, 100),
    made=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), max_size=4),
    pace_tok_s=st.floats(0.5, 20),
)
def test_idle_ahead_is_within_its_bounds(
    slack_s: float, made: list[tuple[float, float]], pace_tok_s: float
) -> None:
    """Never more than the time that passes, and never less than what text is missing for."""
    total_s = sum(length_s for length_s, _ in made)
    read_s = sum(length_s * tok_s for length_s, tok_s in made) / pace_tok_s
    idle_s = idle_ahead_s(slack_s, made, pace_tok_s=pace_tok_s)
    least_s = total_s - max(0.0, slack_s) - read_s
    assert max(0.0, least_s) - 1e-6 <= idle_s <= total_s + 1e-6


def test_idle_ahead_of_a_known_case() -> None:
    """Two seconds of text, nothing for five, then twice his pace, which does not bring the lost
    three seconds back."""
    assert idle_ahead_s(2.0, [(5.0, 0.0), (10.0, 10.0)], pace_tok_s=5.0) == pytest.approx(3.0)
    assert idle_ahead_s(-9.0, [(4.0, 2.5)], pace_tok_s=5.0) == pytest.approx(2.0)


A, B, C = WorkerId("a"), WorkerId("b"), WorkerId("c")


def moving(pools: Pools) -> LiveRequest:
    """A request that decodes on A, beside workers B and C."""
    for each in (A, B, C):
        pools.add(worker(each).worker.description, now=NOW)
    request = LiveRequest(
        request_id=RequestId("r"),
        prompt_tokens=100,
        output_tokens_max=900,
        pace_tok_s=5.0,
        arrived_at=0.0,
        waits_since=0.0,
        stage=Stage.DECODING,
        tokens_delivered=1,
    )
    pools.seat(request, Leg.WHOLE, A, tokens=1000)
    return request


def moved(pools: Pools, request: LiveRequest, target: WorkerId) -> None:
    pools.start_move(request, target)
    pools.commit_move(request)
    pools.check({request.request_id: request})


def committed(pools: Pools) -> dict[WorkerId, int]:
    views = pools.with_room(Role.DECODE, 1, now=NOW)
    return {view.description.worker_id: view.committed_tokens for view in views}


def test_who_was_moved_away_makes_no_room_for_newcomers() -> None:
    pools = Pools()
    request = moving(pools)
    moved(pools, request, B)
    assert committed(pools) == {A: 1000, B: 1000, C: 0}
    views = pools.with_room(Role.DECODE, 1, now=NOW)
    assert [view.legs for view in views] == [0, 1, 0]
    assert place(reader("new"), views).worker_id == C


def test_only_the_last_worker_goes_on_counting_him() -> None:
    pools = Pools()
    request = moving(pools)
    moved(pools, request, B)
    moved(pools, request, C)
    assert committed(pools) == {A: 0, B: 1000, C: 1000}
    moved(pools, request, B)
    assert committed(pools) == {A: 0, B: 1000, C: 1000}


def test_nobody_counts_him_once_he_has_ended() -> None:
    pools = Pools()
    request = moving(pools)
    moved(pools, request, B)
    assert pools.unseat(request) == B
    pools.check({})
    assert committed(pools) == {A: 0, B: 0, C: 0}


def test_a_worker_that_was_lost_has_nothing_to_forget() -> None:
    pools = Pools()
    request = moving(pools)
    moved(pools, request, B)
    about = pools.remove(A).description
    pools.add(replace(about, incarnation=Incarnation("2")), now=NOW)
    pools.unseat(request)
    assert committed(pools) == {A: 0, B: 0, C: 0}
