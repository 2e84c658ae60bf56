"""Placement by load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad, WorkerView
from readahead.core.placement.least_loaded import place
from readahead.core.request import Incarnation, RequestId, RequestView, WorkerId

REQUEST = RequestView(
    request_id=RequestId("r"),
    prompt_tokens=10,
    output_tokens_max=10,
    arrived_at=0.0,
    attempt=1,
    pace_tok_s=5.0,
)


def worker(name: str, *, committed_tokens: int = 0, legs: int = 0, blocks: int = 10) -> WorkerView:
    return WorkerView(
        description=WorkerDescription(
            worker_id=WorkerId(name),
            incarnation=Incarnation("1"),
            role=Role.DECODE,
            engine="emulated",
            model="m",
            context_tokens_max=100,
            block_tokens=16,
            kv_blocks=blocks,
            requests_max=8,
            prefill_credits=2,
            handover_lease_s=6.0,
        ),
        load=WorkerLoad(running=0, waiting=0, kv_blocks_free=blocks),
        observed_at=0.0,
        legs=legs,
        committed_tokens=committed_tokens,
        is_draining=False,
    )


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8))
def test_the_least_committed_wins(committed: list[int]) -> None:
    """Among equal machines the one with the fewest committed tokens is taken."""
    views = [worker(f"w{n}", committed_tokens=tokens) for n, tokens in enumerate(committed)]
    placement = place(REQUEST, views)
    assert committed[int(placement.worker_id[1:])] == min(committed)
    assert set(placement.costs) == {view.description.worker_id for view in views}


def test_a_larger_machine_takes_more() -> None:
    """Load is a share of the machine's memory, not a number of tokens."""
    small = worker("small", committed_tokens=100, blocks=10)
    large = worker("large", committed_tokens=200, blocks=100)
    assert place(REQUEST, [small, large]).worker_id == "large"


def test_ties_go_to_fewer_legs_then_to_the_first() -> None:
    """A total order: the choice does not depend on dictionary history."""
    assert place(REQUEST, [worker("a", legs=2), worker("b", legs=1)]).worker_id == "b"
    assert place(REQUEST, [worker("a"), worker("b")]).worker_id == "a"
