"""News of readers that waits for its way to a worker."""

from __future__ import annotations

import asyncio

from readahead.core.request import RequestId
from readahead.router.outbox import LegKey
from readahead.router.reader_mail import ReaderMail, ReaderNote


def key(name: str) -> LegKey:
    return LegKey(RequestId(name), 1)


def note(read: int) -> ReaderNote:
    return ReaderNote(pace_tok_s=5.0, tokens_read=read, at=1.0)


def test_latest_note_of_each_reader_is_sent_once() -> None:
    """A later one replaces an earlier one; what is taken is gone."""
    mail = ReaderMail()
    for read in (1, 2, 3):
        mail.put(key("a"), note(read))
    mail.put(key("b"), note(9))
    assert mail.take(1) == [(key("a"), note(3))]
    assert mail.take(10) == [(key("b"), note(9))]
    assert mail.take(10) == []


async def test_wait_ends_with_a_note() -> None:
    """And at once where one waits already."""
    mail = ReaderMail()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(mail.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        mail.put(key("a"), note(1))
    await mail.wait()
    mail.take(1)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(mail.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
