"""Laws of the copies between a KV cache and the host: every block, whatever rows it gets."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_ends import BLOCKS, make_cache

from readahead.services.kv.block_memory import BlockMemory
from readahead.services.kv.host_store import HostStore
from readahead.services.kv.memory import runs_of

ROWS = 24
CACHE = make_cache()
MEMORY = BlockMemory(CACHE, blocks=BLOCKS)
COPIES = st.integers(1, ROWS).flatmap(
    lambda count: st.tuples(
        st.permutations(range(BLOCKS)).map(lambda ids: ids[:count]),
        st.permutations(range(ROWS)).map(lambda rows: rows[:count]),
    )
)


@given(st.lists(st.integers(0, 30)))
def test_runs_are_the_longest_pieces_of_neighbours(rows: list[int]) -> None:
    """One after the other they are the whole."""
    runs = runs_of(rows)
    pieces = [rows[begin:end] for begin, end in runs]
    assert [each for piece in pieces for each in piece] == rows
    assert all(piece == list(range(piece[0], piece[0] + len(piece))) for piece in pieces)
    assert all(a[-1] + 1 != b[0] for a, b in itertools.pairwise(pieces))


@settings(deadline=None)  # the first touch of memory takes its time
@given(COPIES)
def test_blocks_come_back_from_any_rows(copy: tuple[list[int], list[int]]) -> None:
    """And the store shows a copy's bytes in its order."""
    ids, slots = copy
    store = HostStore(
        block_bytes=MEMORY.block_bytes, bytes_max=ROWS * MEMORY.block_bytes, lease_s=1
    )
    MEMORY.gather(ids, store.rows, slots)
    shown = b"".join(store.views(slots))
    assert shown == b"".join(bytes(store.rows[slot].numpy()) for slot in slots)
    other = {name: torch.zeros_like(layer) for name, layer in CACHE.items()}
    BlockMemory(other, blocks=BLOCKS).scatter(ids, store.rows, slots)
    rest = sorted(set(range(BLOCKS)) - set(ids))
    for name, layer in other.items():
        assert torch.equal(layer[ids], CACHE[name][ids])
        assert not layer[rest].any()
