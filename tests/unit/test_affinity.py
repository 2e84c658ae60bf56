"""Processors are given back after a library has taken them."""

from __future__ import annotations

import os
import threading

import pytest

from readahead.services.kv.affinity import ALL_PROCESSORS, affinity_kept, for_engines

ALLOWED = os.sched_getaffinity(0)


@pytest.mark.skipif(len(ALLOWED) < 2, reason="one processor: nothing can be taken away")
def test_the_maker_and_its_threads_keep_their_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread made meanwhile, one that was bound on purpose before, and the maker itself."""
    monkeypatch.setenv(ALL_PROCESSORS, "1")
    last = {max(ALLOWED)}
    ids: list[int] = []
    end = threading.Event()

    def started() -> threading.Thread:
        ready = threading.Event()

        def live() -> None:
            ids.append(threading.get_native_id())
            ready.set()
            end.wait()

        thread = threading.Thread(target=live)
        thread.start()
        ready.wait()
        return thread

    bound = started()
    os.sched_setaffinity(ids[0], last)
    try:
        with affinity_kept():
            os.sched_setaffinity(0, last)
            made = started()
            assert os.sched_getaffinity(ids[1]) == last
        assert os.sched_getaffinity(0) == ALLOWED
        assert os.sched_getaffinity(ids[1]) == ALLOWED
        assert os.sched_getaffinity(ids[0]) == last
    finally:
        os.sched_setaffinity(0, ALLOWED)
        end.set()
        bound.join()
        made.join()


def test_the_first_processor_is_left_to_others() -> None:
    assert for_engines({0, 1, 2, 3}, takes_all=False) == {1, 2, 3}
    assert for_engines({4, 6}, takes_all=False) == {6}
    assert for_engines({4}, takes_all=False) == {4}
    assert for_engines({4, 6}, takes_all=True) == {4, 6}
