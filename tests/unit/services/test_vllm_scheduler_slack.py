"""The memory that a front end and its engine core share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from readahead.services.engine.engine import PlanReport
from readahead.services.engine.vllm_scheduler_names import POLICY_NAMES
from readahead.services.engine.vllm_slack import ReaderNews, SlackBoard, SlackView, Slot

SLOTS = 6


@pytest.fixture
def board() -> Iterator[SlackBoard]:
    made = SlackBoard(SLOTS)
    yield made
    made.close()


@pytest.fixture
def view(board: SlackBoard) -> Iterator[SlackView]:
    made = SlackView(board.path)
    yield made
    made.close()


def news(slot: Slot, *, read: int = 3) -> ReaderNews:
    return ReaderNews(slot=slot, pace_tok_s=4.5, tokens_read=read, at_s=12.25)


def opened(board: SlackBoard) -> Slot:
    slot = board.open_slot()
    assert slot is not None
    return slot


def test_core_sees_each_news_once(board: SlackBoard, view: SlackView) -> None:
    """Whole, and only what is new since it looked last."""
    first, second = opened(board), opened(board)
    assert view.changed() == []
    board.write(news(first))
    board.write(news(second, read=0))
    assert sorted(view.changed(), key=lambda n: n.slot.number) == sorted(
        [news(first), news(second, read=0)], key=lambda n: n.slot.number
    )
    assert view.changed() == []
    board.write(news(second, read=9))
    assert view.changed() == [news(second, read=9)]


def test_later_news_hides_earlier(board: SlackBoard, view: SlackView) -> None:
    """What counts is how far a reader is, not each word of his."""
    slot = opened(board)
    for read in range(50):
        board.write(news(slot, read=read))
    assert view.changed() == [news(slot, read=49)]


def test_core_that_did_not_look_for_long_misses_nobody(board: SlackBoard, view: SlackView) -> None:
    """More words than the ring has places: all slots are looked at."""
    quiet, loud = opened(board), opened(board)
    board.write(news(quiet, read=1))
    for read in range(5000):
        board.write(news(loud, read=read))
    assert {n.slot: n.tokens_read for n in view.changed()} == {quiet: 1, loud: 4999}
    board.write(news(quiet, read=2))
    assert view.changed() == [news(quiet, read=2)]


def test_next_reader_of_a_place_has_another_epoch(board: SlackBoard, view: SlackView) -> None:
    """What is written for one who has left goes nowhere."""
    old = opened(board)
    board.close_slot(old)
    board.close_slot(old)  # a second time changes nothing
    fresh = opened(board)
    assert (fresh.number, fresh == old) == (old.number, False)
    board.write(news(old))
    assert view.changed() == []
    board.write(news(fresh))
    assert view.changed() == [news(fresh)]


def test_there_are_only_so_many_places(board: SlackBoard) -> None:
    """A reader beyond them has none, and each place is given to one at a time."""
    slots = [board.open_slot() for _ in range(SLOTS + 1)]
    assert slots[-1] is None
    assert len({slot.number for slot in slots if slot is not None}) == SLOTS


def test_report_comes_back_as_it_was_told(board: SlackBoard, view: SlackView) -> None:
    """Each field under its own name."""
    view.tell(
        (POLICY_NAMES.index("sarathi"), 1, 2, 3, 4, 5, 6, 7, 8, 9.5, 10.5, 11, 12, 13, 14, 15)
    )
    assert board.report() == PlanReport(
        policy="sarathi",
        iterations=1,
        planned=2,
        kept=3,
        failures=4,
        overruns=5,
        yielded=6,
        held_requests=7,
        preemptions=8,
        planner_s=9.5,
        last_planner_s=10.5,
        last_batch_tokens=11,
        last_held=12,
        parks=13,
        resumes=14,
        parked=15,
    )


def test_report_of_a_core_that_has_told_nothing(board: SlackBoard) -> None:
    """It runs in vLLM's own order and has done nothing."""
    assert board.report() == PlanReport(policy="vllm")


def test_memory_goes_with_its_processes(board: SlackBoard) -> None:
    """It has no name in the file system, and closing is final and harmless."""
    path = Path(board.path)
    assert path.exists()
    assert "memfd:readahead-slack" in str(path.readlink())
    slot = opened(board)
    board.close()
    board.close()
    assert not path.exists()
    board.write(news(slot))
