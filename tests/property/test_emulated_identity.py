"""The emulated engine says the same on every route, and keeps no KV behind."""

from __future__ import annotations

import asyncio

from emulated_runs import PROFILE, made_prompt, run, said
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.cluster import Role
from readahead.core.request import Leg, RequestId
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.engine import LegRequest, Sampling

# Long ones must be drawn as such: lists that hypothesis grows by itself are a few tokens long.
prompts = st.builds(made_prompt, seed=st.integers(0, 9), tokens=st.integers(1, 400))
requests = st.lists(st.tuples(prompts, st.integers(1, 40), st.booleans()), min_size=1, max_size=8)


async def through(
    engines: tuple[EmulatedEngine, EmulatedEngine],
    name: str,
    *,
    prompt: list[int],
    sampling: Sampling,
    is_remote: bool,
) -> tuple[list[int], str]:
    """Runs a request whole, or as a prefill and a decode leg on two engines."""
    prefill, decode = engines
    leg, handover = Leg.WHOLE, b""
    key = (RequestId(name), 1)
    if is_remote:
        first = LegRequest(key=key, leg=Leg.PREFILL, prompt_token_ids=prompt, sampling=sampling)
        (output,) = await run(prefill, first)
        assert output.end is not None
        leg, handover = Leg.DECODE, output.end.handover
    request = LegRequest(
        key=key, leg=leg, prompt_token_ids=prompt, sampling=sampling, handover=handover
    )
    return said(await run(decode, request))


async def compare(drawn: list[tuple[list[int], int, bool]], stop: tuple[str, ...]) -> None:
    engines = (
        EmulatedEngine(PROFILE, role=Role.PREFILL),
        EmulatedEngine(PROFILE, role=Role.DECODE),
    )
    for engine in engines:
        await engine.open()
    alone, together = [], []
    for index, (prompt, max_tokens, _) in enumerate(drawn):
        sampling = Sampling(max_tokens=max_tokens, stop=stop)
        alone.append(
            await through(
                engines, f"alone{index}", prompt=prompt, sampling=sampling, is_remote=False
            )
        )
    async with asyncio.TaskGroup() as tasks:
        for index, (prompt, max_tokens, is_remote) in enumerate(drawn):
            sampling = Sampling(max_tokens=max_tokens, stop=stop)
            call = through(
                engines, f"r{index}", prompt=prompt, sampling=sampling, is_remote=is_remote
            )
            together.append(tasks.create_task(call))
    assert [task.result() for task in together] == alone
    for engine in engines:
        engine.check()
        state = await engine.inspect()
        assert (state.handovers_held, state.load.kv_blocks_free) == (0, PROFILE.kv_blocks)
        await engine.close()
    transfers = (await engines[1].inspect()).transfers_total
    assert transfers == sum(is_remote for _, _, is_remote in drawn)


@settings(max_examples=40, deadline=None)
@given(drawn=requests, stop=st.sampled_from([(), (" ba",), ("i l", "u")]))
def test_inv_09_output_is_the_same_on_every_route(
    drawn: list[tuple[list[int], int, bool]], stop: tuple[str, ...]
) -> None:
    """Alone or in a crowd that preempts, whole or handed over: the same tokens and text, with one
    transfer for each handover and every KV block free afterwards."""
    asyncio.run(compare(drawn, stop))


@settings(max_examples=40, deadline=None)
@given(prompt=prompts, cut=st.integers(0, 20))
def test_output_continues_from_prompt_and_output(prompt: list[int], cut: int) -> None:
    """A prompt with the first tokens of its output appended brings the rest of that output."""

    async def replay() -> None:
        engine = EmulatedEngine(PROFILE, role=Role.DECODE)
        await engine.open()
        whole, _ = said(await run(engine, request("whole", prompt, 21)))
        rest, _ = said(await run(engine, request("rest", prompt + whole[:cut], 21 - cut)))
        await engine.close()
        assert whole[:cut] + rest == whole

    def request(name: str, ids: list[int], max_tokens: int) -> LegRequest:
        return LegRequest(
            key=(RequestId(name), 1),
            leg=Leg.WHOLE,
            prompt_token_ids=ids,
            sampling=Sampling(max_tokens=max_tokens),
        )

    asyncio.run(replay())
