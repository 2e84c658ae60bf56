"""The host store: what it keeps, for how long, and in how much memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from kv_ends import BLOCKS, make_cache

from readahead.core.errors import ReadaheadError, Reason
from readahead.services.kv.block_memory import BlockMemory
from readahead.services.kv.host_store import HostStore, Offer


class Clock:
    """Stands still until told."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> HostStore:
    return HostStore(block_bytes=8, bytes_max=83, lease_s=6.0, now=clock)


def keep(store: HostStore, key: str, blocks: int, *, is_leased: bool = True) -> None:
    store.save(key, blocks, lambda slots: None, is_leased=is_leased)


def test_bytes_are_bounded(store: HostStore) -> None:
    """A copy that does not fit is refused with a reason, and nothing of it stays."""
    assert store.capacity_blocks == 10
    keep(store, "a", 6)
    with pytest.raises(ReadaheadError) as caught:
        keep(store, "b", 5)
    assert caught.value.reason is Reason.OVERLOADED
    assert store.keys() == {"a": 6}
    keep(store, "b", 4)
    assert store.free_blocks == 0


def test_lease_ends_and_renewal_extends_it(store: HostStore, clock: Clock) -> None:
    """A renewal gives two thirds of a lease, and never takes any."""
    keep(store, "a", 2)
    keep(store, "b", 2)
    keep(store, "parked", 2, is_leased=False)
    assert store.renew(["a", "never"]) == ["never"]
    clock.now_s += 5
    assert store.renew(["a"]) == []
    clock.now_s += 1
    assert store.keys() == {"a": 2, "parked": 2}
    clock.now_s += 3
    assert store.renew(["a", "b"]) == ["a", "b"]
    assert store.keys() == {"parked": 2}
    assert store.take_gone() == ["b", "a"]
    assert store.take_gone() == []


def test_offered_copy_is_under_a_lease_from_then_on(store: HostStore, clock: Clock) -> None:
    """A parked one has none until then."""
    keep(store, "a", 2, is_leased=False)
    clock.now_s += 1000
    store.lease(["a", "never"])
    clock.now_s += 5
    assert store.keys() == {"a": 2}
    clock.now_s += 1
    assert store.keys() == {}


def test_rows_stay_while_somebody_reads(store: HostStore, clock: Clock) -> None:
    """Neither a drop nor the lease's end gives them to another copy."""
    keep(store, "dropped", 3)
    keep(store, "expired", 3)
    with store.reading("dropped"), store.reading("expired"):
        store.drop(["dropped"])
        clock.now_s += 10
        assert store.keys() == {"expired": 3}
        assert store.free_blocks == 4
    assert store.keys() == {}
    assert store.free_blocks == 10


def test_copy_that_was_here_is_not_waited_for(store: HostStore) -> None:
    """Nor one that is known to be refused."""
    keep(store, "a", 1)
    store.drop(["a", "early"])
    with pytest.raises(ReadaheadError):
        keep(store, "big", 11)
    for key in ("a", "early", "big"):
        with pytest.raises(ReadaheadError) as caught, store.reading(key, wait_s=60):
            pass
        assert caught.value.reason is Reason.KV_EXPIRED


def test_copy_is_not_read_before_it_is_made(store: HostStore) -> None:
    """One who asks meanwhile waits until it is whole."""
    read: list[int] = []

    def reader() -> None:
        with store.reading("a", wait_s=10) as slots:
            read.extend(slots)

    thread = threading.Thread(target=reader)

    def fill(slots: object) -> None:
        thread.start()
        thread.join(0.05)
        assert not read

    store.save("a", 3, fill, is_leased=True)
    thread.join(10)
    assert read == [0, 1, 2]


def test_copy_that_cannot_be_made_gives_its_rows_back(store: HostStore) -> None:
    """And its error to the caller."""

    def fill(slots: object) -> None:
        raise ValueError("no such block")

    with pytest.raises(ValueError, match="no such block"):
        store.save("a", 3, fill, is_leased=True)
    assert store.keys() == {}
    assert store.free_blocks == 10


def test_offer_takes_no_room_until_somebody_reads_it(store: HostStore, clock: Clock) -> None:
    """Then it is a copy under a lease, and made again when it is asked for after that."""
    made: list[Sequence[int]] = []
    store.offer("a", Offer(blocks=4, fill=made.append))
    assert (made, store.free_blocks, store.keys()) == ([], 10, {})
    for _ in range(2):
        with store.reading("a") as slots:
            assert (slots, store.free_blocks) == ([0, 1, 2, 3], 6)
    assert made == [[0, 1, 2, 3]]
    clock.now_s += 6
    assert store.keys() == {}
    with store.reading("a"):
        assert len(made) == 2


def test_withdrawn_offer_is_gone(store: HostStore) -> None:
    """With its copy, and also for one who asked before; what is no offer stays."""
    keep(store, "other", 1)
    for key in ("read", "unread"):
        store.offer(key, Offer(blocks=3, fill=lambda slots: None))
    with store.reading("read"):
        store.withdraw(["read", "unread", "other"])
    store.offer("late", Offer(blocks=3, fill=lambda slots: store.withdraw(["late"])))
    for key in ("read", "unread", "late"):
        with pytest.raises(ReadaheadError) as caught, store.reading(key, wait_s=60):
            pass
        assert caught.value.reason is Reason.KV_EXPIRED
    assert store.keys() == {"other": 1}
    assert store.free_blocks == 9
    assert store.take_taken() == set()


def test_offer_that_does_not_fit_is_refused_and_stands(store: HostStore) -> None:
    """There may be room later."""
    store.offer("a", Offer(blocks=10, fill=lambda slots: None))
    keep(store, "other", 1)
    with pytest.raises(ReadaheadError) as caught, store.reading("a"):
        pass
    assert caught.value.reason is Reason.OVERLOADED
    store.drop(["other"])
    with store.reading("a") as slots:
        assert len(slots) == 10


def test_dropped_offer_is_told_once(store: HostStore) -> None:
    """Whoever holds its blocks may free them; a copy's drop is not told."""
    keep(store, "copy", 1)
    for key in ("pulled", "unread"):
        store.offer(key, Offer(blocks=3, fill=lambda slots: None))
    with store.reading("pulled"):
        pass
    store.drop(["pulled", "unread", "copy", "never"])
    assert store.take_taken() == {"pulled", "unread"}
    assert store.take_taken() == set()
    assert store.free_blocks == 10


def test_reaper_frees_by_itself() -> None:
    """Without anybody asking, and ends when the store is closed."""
    store = HostStore(block_bytes=8, bytes_max=80, lease_s=0.02)
    thread = threading.Thread(target=store.reap)
    thread.start()
    keep(store, "a", 4)
    with store._changed:
        assert store._changed.wait_for(lambda: len(store._free) == 10, timeout=10)
    store.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("slots", [[4, 5, 6], [9, 2, 5]], ids=["run", "scattered"])
@pytest.mark.parametrize("layout", ["blocks-first", "keys-and-values-first"])
def test_blocks_go_to_the_host_and_back(layout: str, slots: list[int]) -> None:
    """Byte for byte, into other blocks of the cache, and no other block changes."""
    cache = make_cache()
    if layout == "keys-and-values-first":
        cache = {name: torch.stack([each, -each]) for name, each in cache.items()}
    memory = BlockMemory(cache, blocks=BLOCKS)
    rows = torch.zeros(12, memory.block_bytes, dtype=torch.uint8)
    before = {name: each.clone() for name, each in cache.items()}
    memory.gather([31, 0, 8], rows, slots)
    memory.scatter([1, 30, 17], rows, slots)
    dimension = 0 if layout == "blocks-first" else 1
    for name, each in cache.items():
        expected = before[name]
        moved = expected.index_select(dimension, torch.tensor([31, 0, 8]))
        expected.index_copy_(dimension, torch.tensor([1, 30, 17]), moved)
        assert torch.equal(each, expected)


def test_unknown_layouts_are_refused() -> None:
    """With the layer's name."""
    with pytest.raises(ValueError, match="layer a: no 5 blocks in shape"):
        BlockMemory({"a": torch.zeros(4, 2)}, blocks=5)
    with pytest.raises(ValueError, match="layer b: its blocks are not contiguous"):
        BlockMemory({"b": torch.zeros(2, 5).t()}, blocks=5)
    with pytest.raises(ValueError, match="no layers"):
        BlockMemory({}, blocks=5)
    memory = BlockMemory({"a": torch.zeros(4, 3)}, blocks=4)
    with pytest.raises(ValueError, match=r"within 0\.\.3"):
        memory.gather([4], torch.zeros(1, 12, dtype=torch.uint8), [0])
