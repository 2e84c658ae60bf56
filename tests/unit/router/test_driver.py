"""Driver: performs what the core commands, and turns what goes wrong into events."""

from __future__ import annotations

import asyncio

import pytest
from toy_session import FakeLink, error_of, settle, toy_call, toy_driver, toy_table

from readahead.core.config import AdmissionConfig, CoreConfig
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import Command, Event, LegFailed, LegRefused, TimerFired
from readahead.core.router_state import RouterState
from readahead.router.driver import Driver
from readahead.router.links import UnansweredError


class BuggyState(RouterState):
    """A core that fails when a timer fires."""

    def handle(self, event: Event, *, now: float) -> list[Command]:
        if isinstance(event, TimerFired):
            raise KeyError("our bug")
        return super().handle(event, now=now)


async def test_refusal_is_an_event() -> None:
    """The worker's reason reaches the core, which tries again."""
    async with toy_driver() as driver:
        link, other = FakeLink("d0"), FakeLink("d1")
        link.refusal = other.refusal = ReadaheadError(Reason.OVERLOADED, "full")
        driver.join(link.as_link())
        driver.join(other.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        refusals = [event for _, event in driver.ring if isinstance(event, LegRefused)]
        assert [refusal.reason for refusal in refusals] == [Reason.OVERLOADED] * 2
        assert session.worker_id is None
        session.cancel()


async def test_fault_of_the_callers_ends_the_request() -> None:
    """A refusal that no other worker would take back goes to the caller as it is."""
    async with toy_driver() as driver:
        link = FakeLink()
        link.refusal = ReadaheadError(Reason.CONTEXT_TOO_LONG, "too long")
        driver.join(link.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        assert error_of(session).reason is Reason.CONTEXT_TOO_LONG


async def test_submit_without_an_answer_costs_the_attempt() -> None:
    """The worker may have taken the leg, so its name is not used again."""
    async with toy_driver() as driver:
        link = FakeLink()
        link.refusal = UnansweredError("no answer")
        driver.join(link.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        assert any(isinstance(event, LegFailed) for _, event in driver.ring)
        assert [message.attempt for message in link.submitted] == [1, 2]
        assert [key.attempt for key in link.cancelled] == [1]
        session.cancel()


async def test_bug_in_an_effect_is_the_requests_alone() -> None:
    """It ends as BUG or is tried again; the router goes on."""
    async with toy_driver() as driver:
        link = FakeLink()
        link.refusal = ZeroDivisionError("our bug")
        driver.join(link.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        refusals = [event for _, event in driver.ring if isinstance(event, LegRefused)]
        assert [refusal.reason for refusal in refusals] == [Reason.BUG]
        assert not driver.broken.is_set()
        session.cancel()


async def test_bug_in_the_core_ends_every_request_and_is_told() -> None:
    """Nothing the core says after that can be trusted."""
    async with Driver(BuggyState(CoreConfig())) as driver:
        table = toy_table(driver)
        sessions = [await table.open(toy_call(name)) for name in ("a", "b")]
        driver.handle(TimerFired())
        assert [error_of(session).reason for session in sessions] == [Reason.BUG] * 2
        assert driver.broken.is_set()
        assert not table.models()
        with pytest.raises(ReadaheadError, match="BUG"):
            await table.open(toy_call())


async def test_timer_fires_at_the_deadline() -> None:
    """Without any other event, a request that waits too long is refused."""
    core = CoreConfig(admission=AdmissionConfig(wait_s_max=0.1))
    async with Driver(RouterState(core)) as driver:
        session = await toy_table(driver).open(toy_call())
        with pytest.raises(ReadaheadError) as refusal:
            async with asyncio.timeout(5):
                await session.next_chunk()
        assert refusal.value.reason is Reason.NO_WORKER


async def test_a_lost_worker_takes_its_legs_with_it() -> None:
    """News of them that still comes counts for nothing; the next worker gets the request."""
    async with toy_driver() as driver:
        first, second = FakeLink("d0"), FakeLink("d1")
        driver.join(first.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        driver.join(second.as_link())
        driver.leave(first.as_link(), "a test said so")
        await settle()
        assert session.worker_id == "d1"
        assert [message.attempt for message in second.submitted] == [2]
        session.cancel()


async def test_router_is_idle_once_the_last_request_has_ended() -> None:
    """`wait_idle` returns then and not before."""
    async with toy_driver() as driver:
        session = await toy_table(driver).open(toy_call())
        async with asyncio.TaskGroup() as tasks:
            idle = tasks.create_task(driver.wait_idle())
            await settle()
            assert not idle.done()
            session.cancel()
