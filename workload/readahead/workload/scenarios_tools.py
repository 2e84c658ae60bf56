"""An agent that calls tools in a loop, and a person who reads what it says at the end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from readahead.workload.lengths import Lengths, LognormalLength
from readahead.workload.readers import DEFAULT_READERS, Durations, ReaderPopulation
from readahead.workload.scenarios import AS_IS, Fit, check_rounds, opening, rounds
from readahead.workload.scenarios_slo import slo_class
from readahead.workload.session import Pause, Segment, Session, Turn
from readahead.workload.slo import SloClass

DEFAULT_QUERY = LognormalLength(median_tokens=60, sigma=0.8)
DEFAULT_CALL = LognormalLength(median_tokens=60, sigma=0.6)
DEFAULT_RESULT = LognormalLength(median_tokens=250, sigma=1.0)
DEFAULT_ANSWER = LognormalLength(median_tokens=200, sigma=0.7)
DEFAULT_TOOL_TIME = Durations(median_s=1.0, sigma=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolScenario:
    """Rounds that a program reads, with the tool's time between them, then an answer.

    There is no public trace of such loops with real arrivals: every number below is an assumption
    of the size of published agents, to be set for the system in question.
    """

    loop_slo: SloClass
    answer_slo: SloClass
    name: str = "tool-calling"
    readers: ReaderPopulation = DEFAULT_READERS
    fit: Fit = AS_IS
    tools_tokens: int = 1000
    """Descriptions of the tools, which all sessions of a tenant begin with."""
    query: Lengths = DEFAULT_QUERY
    """What the person asks."""
    call: Lengths = DEFAULT_CALL
    """A round's output: a short thought and one call."""
    result: Lengths = DEFAULT_RESULT
    """What a tool returns into the next prompt."""
    answer: Lengths = DEFAULT_ANSWER
    """What the person reads."""
    calls_mean: float = 3.0
    """Mean of the geometric number of tool calls, before `calls_max` and a full context cut it."""
    calls_max: int = 10
    tool_time: Durations = DEFAULT_TOOL_TIME
    """How long a tool runs."""

    def __post_init__(self) -> None:
        check_rounds("calls", self.calls_mean, self.calls_max)
        if self.tools_tokens < 0:
            raise ValueError(f"tools_tokens must be >= 0, is {self.tools_tokens}")

    @property
    def label(self) -> str:
        """The name, with how lengths were changed."""
        return self.name + self.fit.label

    def make_session(
        self,
        *,
        session_id: str,
        arrival_s: float,
        tenant: str,
        user: str,
        rng: random.Random,
        lengths: tuple[int, int] | None = None,
    ) -> Session:
        """One question with its loop. Of a trace's row, the prompt is the first round's, tool
        descriptions included, and the output the answer's."""
        reader = self.readers.draw(rng)
        if lengths is None:
            prompt_tokens = self.fit.prompt(self.tools_tokens + self.query.draw(rng))
            answer_tokens = self.fit.output(self.answer.draw(rng))
        else:
            prompt_tokens, answer_tokens = self.fit.prompt(lengths[0]), self.fit.output(lengths[1])
        segments = opening(
            prompt_tokens,
            shared_tokens=self.tools_tokens and self.fit.scaled(self.tools_tokens),
            shared_key=f"{tenant}/{self.name}/tools",
            session_id=session_id,
        )
        return Session(
            session_id=session_id,
            arrival_s=arrival_s,
            scenario=self.label,
            tenant=tenant,
            user=user,
            reader=reader,
            turns=tuple(self._turns(segments, answer_tokens, rng)),
        )

    def _turns(
        self, segments: tuple[Segment, ...], answer_tokens: int, rng: random.Random
    ) -> Iterator[Turn]:
        """The loop, as long as the context holds the next round, then the answer."""
        prompt_tokens = sum(segment.tokens for segment in segments)
        own_key = segments[-1].key.rpartition("/")[0]
        pause_s, is_first = 0.0, True
        for index in range(1, rounds(self.calls_mean, self.calls_max, rng) + 1):
            call_tokens = self.fit.output(self.call.draw(rng))
            result_tokens = self.fit.prompt(self.result.draw(rng))
            if not self.fit.allows_prompt(prompt_tokens + call_tokens + result_tokens):
                break
            yield Turn(
                segments=segments,
                output_tokens=call_tokens,
                has_reader=False,
                carries_context=not is_first,
                pause_s=pause_s,
                pause_from=Pause.ENDED,
                slo=self.loop_slo,
            )
            segments = (Segment(f"{own_key}/{index}", result_tokens),)
            prompt_tokens += call_tokens + result_tokens
            pause_s, is_first = self.tool_time.draw(rng), False
        yield Turn(
            segments=segments,
            output_tokens=answer_tokens,
            carries_context=not is_first,
            pause_s=pause_s,
            pause_from=Pause.ENDED,
            slo=self.answer_slo,
        )


def tool_calling(*, large: bool = False) -> ToolScenario:
    """Tool calling with the SLOs of [SLOs-Serve]; its lengths are assumptions."""
    return ToolScenario(
        loop_slo=slo_class("tool-loop", large=large),
        answer_slo=slo_class("tool-answer", large=large),
    )
