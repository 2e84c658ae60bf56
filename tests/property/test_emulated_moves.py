"""A leg that stops, goes on or moves says what it says on one emulated engine; blocks are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from emulated_runs import PROFILE, made_prompt, run, said
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import Leg, RequestId
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.emulated_text import checksum, next_token, token_text
from readahead.services.engine.engine import LegEnd, LegOffer, LegOutput, LegRequest, Sampling

MOVABLE = replace(PROFILE, latency=replace(PROFILE.latency, time_scale=1e-4))
"""Slow enough that a leg can be caught between two tokens."""


def unmoved(prompt: Sequence[int], tokens: int) -> str:
    """The text that follows a prompt, without stop strings."""
    state, words = checksum(prompt), []
    for _ in range(tokens):
        token = next_token(state, vocabulary_tokens=MOVABLE.vocabulary_tokens)
        words.append(token_text(token))
        state = checksum([token], before=state)
    return "".join(words)


@dataclass(slots=True)
class Journey:
    """One request, wherever it is."""

    request: LegRequest
    outputs: list[LegOutput] = field(default_factory=list)
    engine: EmulatedEngine | None = None
    _run: AsyncGenerator[LegOutput, None] | None = None

    @property
    def token_ids(self) -> list[int]:
        return [token for output in self.outputs for token in output.token_ids]

    @property
    def end(self) -> LegEnd | None:
        return self.outputs[-1].end if self.outputs else None

    def start(self, engine: EmulatedEngine, request: LegRequest) -> None:
        self.engine = engine
        self._run = cast("AsyncGenerator[LegOutput, None]", engine.run(request))

    async def read(self, tokens: int) -> None:
        """Reads so many tokens in all, or to the end."""
        assert self._run is not None
        while len(self.token_ids) < tokens and self.end is None:
            self.outputs.append(await anext(self._run))

    async def stop(self) -> LegOffer | None:
        """Reads what the leg still said; None where it has ended first."""
        assert self.engine is not None
        try:
            offer = await self.engine.offer_leg(self.request.key)
        except ReadaheadError as error:
            if error.reason is not Reason.REQUEST_NOT_FOUND:
                raise
            await self.read(10_000)
            return None
        await self.read(offer.output_tokens)
        assert len(self.token_ids) == offer.output_tokens
        return offer

    async def leave(self) -> None:
        assert self._run is not None
        await self._run.aclose()

    async def move(self, target: EmulatedEngine, offer: LegOffer, number: int) -> None:
        """The target has it once it says something; only then does the source let go."""
        source = self._run
        request = replace(
            self.request,
            key=(self.request.key[0], number),
            leg=Leg.DECODE,
            handover=offer.handover,
            output_token_ids=self.token_ids,
        )
        self.request = request
        self.start(target, request)
        await self.read(len(self.token_ids) + 1)
        assert source is not None
        await source.aclose()


@st.composite
def requests(draw: st.DrawFn) -> LegRequest:
    prompt = made_prompt(draw(st.integers(0, 9)), draw(st.integers(1, 300)))
    tokens = draw(st.integers(2, 60))
    text = unmoved(prompt, tokens)
    stops = []
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, len(text) - 2))
        stops.append(text[begin : begin + draw(st.integers(1, 20))])
    return LegRequest(
        key=(RequestId("r"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=prompt,
        sampling=Sampling(
            max_tokens=tokens, stop=tuple(stops), min_tokens=draw(st.integers(0, tokens))
        ),
    )


@settings(max_examples=60, deadline=None)
@given(
    request=requests(),
    stops=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), max_size=4),
)
def test_a_moved_leg_says_what_an_unmoved_one_says(
    request: LegRequest, stops: list[tuple[int, int]]
) -> None:
    """Tokens, text, stop strings across the gap, least lengths, the end; every block is free."""

    async def scenario() -> None:
        engines = [EmulatedEngine(MOVABLE, role=Role.DECODE) for _ in range(3)]
        for engine in engines:
            await engine.open()
        alone = replace(request, key=(RequestId("alone"), 1))
        expected = await run(engines[0], alone)
        journey, at = Journey(request), 0
        journey.start(engines[0], request)
        for number, (tokens, target) in enumerate(stops, 2):
            await journey.read(len(journey.token_ids) + tokens)
            if journey.end is not None or (offer := await journey.stop()) is None:
                break
            if target in (at, 3):
                assert journey.engine is not None
                if target == 3:  # another engine has pulled it, and was lost
                    engines[at]._handovers.release([journey.request.key])
                await journey.engine.resume_leg(journey.request.key)
            else:
                await journey.move(engines[target], offer, number)
                at = target
            for engine in engines:
                engine.check()
        await journey.read(10_000)
        await journey.leave()
        assert said(journey.outputs) == said(expected)
        assert journey.end == expected[-1].end
        for engine in engines:
            engine.check()
            assert engine.load().kv_blocks_free == MOVABLE.kv_blocks
            assert not (await engine.inspect()).handovers_held
            await engine.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("is_pulled", [False, True], ids=["held", "pulled"])
async def test_cancel_of_a_stopped_leg_leaves_nothing(is_pulled: bool) -> None:
    """Whether its KV still waits or has gone already."""
    engine = EmulatedEngine(MOVABLE, role=Role.DECODE)
    await engine.open()
    request = LegRequest(
        key=(RequestId("r"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=made_prompt(1, 100),
        sampling=Sampling(max_tokens=100),
    )
    journey = Journey(request)
    journey.start(engine, request)
    await journey.read(3)
    assert await journey.stop() is not None
    assert (await engine.inspect()).handovers_held == 1
    if is_pulled:
        engine._handovers.release([request.key])
    await journey.leave()
    engine.check()
    assert engine.load().kv_blocks_free == MOVABLE.kv_blocks
    await engine.close()


async def test_a_leg_that_generates_nothing_cannot_be_offered() -> None:
    """One that is not here, has no token yet, or has ended."""
    engine = EmulatedEngine(MOVABLE, role=Role.DECODE)
    await engine.open()
    request = LegRequest(
        key=(RequestId("r"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=made_prompt(1, 10),
        sampling=Sampling(max_tokens=2),
    )
    with pytest.raises(ReadaheadError, match="REQUEST_NOT_FOUND"):
        await engine.offer_leg(request.key)
    journey = Journey(request)
    journey.start(engine, request)
    await journey.read(2)
    with pytest.raises(ReadaheadError, match="REQUEST_NOT_FOUND"):
        await engine.offer_leg(request.key)
    await journey.leave()
    await engine.close()
