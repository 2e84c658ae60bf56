"""SessionTable: what is admitted, with which limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_session import FakeLink, toy_call, toy_driver, toy_table

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import RequestId


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "taken"),
    [(3, None, 997), (3, 5, 5), (999, None, 1), (3, 997, 997)],
)
async def test_output_is_bounded_by_the_context(
    prompt_tokens: int, max_tokens: int | None, taken: int
) -> None:
    """Without a wish, the rest of the context."""
    async with toy_driver() as driver:
        call = toy_call(prompt_tokens=prompt_tokens, max_tokens=max_tokens)
        session = await toy_table(driver).open(call)
        assert session.max_tokens == taken
        session.cancel()


@pytest.mark.parametrize(("prompt_tokens", "max_tokens"), [(1000, None), (1000, 1), (3, 998)])
async def test_what_does_not_fit_is_refused(prompt_tokens: int, max_tokens: int | None) -> None:
    """CONTEXT_TOO_LONG, with the numbers."""
    async with toy_driver() as driver:
        with pytest.raises(ReadaheadError) as refusal:
            await toy_table(driver).open(
                toy_call(prompt_tokens=prompt_tokens, max_tokens=max_tokens)
            )
        assert refusal.value.reason is Reason.CONTEXT_TOO_LONG
        assert refusal.value.metadata["context_tokens_max"] == "1000"
        assert not driver.sessions


async def test_the_smallest_worker_decides_the_context() -> None:
    """Any worker may get the request."""
    async with toy_driver() as driver:
        link = FakeLink()
        link.description = replace(link.description, context_tokens_max=500)
        driver.join(link.as_link())
        (model,) = toy_table(driver).models()
        assert model.context_tokens_max == 500


async def test_requests_max_is_a_limit() -> None:
    """The next one is OVERLOADED with a hint, and told the limit."""
    async with toy_driver() as driver:
        table = toy_table(driver, requests_max=1)
        session = await table.open(toy_call("a"))
        with pytest.raises(ReadaheadError) as refusal:
            await table.open(toy_call("b"))
        assert refusal.value.reason is Reason.OVERLOADED
        assert refusal.value.retry_after_s is not None
        assert refusal.value.metadata == {"requests_max": "1"}
        session.cancel()


async def test_draining_router_takes_nothing() -> None:
    """NO_WORKER, retryable; what lives goes on."""
    async with toy_driver() as driver:
        driver.join(FakeLink().as_link())
        table = toy_table(driver)
        session = await table.open(toy_call("a"))
        table.drain()
        with pytest.raises(ReadaheadError) as refusal:
            await table.open(toy_call("b"))
        assert refusal.value.reason is Reason.NO_WORKER
        assert not table.models()
        assert session.end is None
        session.cancel()


async def test_models_need_a_decode_worker() -> None:
    """Decode workers can do without prefill workers, but not the reverse."""
    async with toy_driver() as driver:
        table = toy_table(driver)
        assert not table.models()
        driver.join(FakeLink("p0", Role.PREFILL).as_link())
        assert not table.models()
        decode = FakeLink("d0")
        driver.join(decode.as_link())
        assert [model.name for model in table.models()] == ["toy"]
        decode.is_draining = True
        assert not table.models()


async def test_reading_is_reported_for_live_and_ended_requests() -> None:
    """A reader goes on after the last token."""
    async with toy_driver() as driver:
        table = toy_table(driver)
        session = await table.open(toy_call("a"))
        assert table.report_reading(RequestId("a"), 1)
        session.cancel()
        assert table.report_reading(RequestId("a"), 2)
        assert not table.report_reading(RequestId("b"), 2)
        assert not table.cancel(RequestId("a"))
