"""A router that is starting says so."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import pytest

from readahead.router import app, config, doors
from readahead.router.prompts import Prompts


async def test_http_answers_503_while_the_tokenizer_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A probe or an eager client sees an honest refusal with a hint, not a closed port."""
    may_load = threading.Event()

    def load(cls: type[Prompts], model: config.ModelConfig) -> Prompts:
        assert may_load.wait(30)
        raise ValueError("model.path: nothing there")

    monkeypatch.setattr(Prompts, "load", classmethod(load))
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen(config: config.DoorsConfig) -> doors.Doors:
        made = await doors.listen(config)
        address.set_result(made.http_address)
        return made

    monkeypatch.setattr("readahead.router.app.listen", listen)
    settings = config.RouterConfig(doors=config.DoorsConfig(http_port=0, grpc_port=0))

    async def ask() -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("/health", "/v1/models"):
                async with session.get(f"http://{await address}{path}") as response:
                    assert response.status == 503
                    assert response.headers["x-should-retry"] == "true"
                    assert (await response.json())["error"]["code"] == "no_worker"
        may_load.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        with pytest.raises(ValueError, match="nothing there"):
            async with app.running(settings):
                pytest.fail("a router without a model has no doors to open")
