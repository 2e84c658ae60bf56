"""Sessions that repeat a trace's rows: one request each, at its own time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from readahead.core.reading.benefit import DEFAULT_PACE_TOK_S
from readahead.workload.columns import TraceColumns
from readahead.workload.reader import Reader
from readahead.workload.readers import ReaderPopulation
from readahead.workload.scenarios import AS_IS, Fit
from readahead.workload.scenarios_registry import make_readers
from readahead.workload.session import Segment, Session, Turn

TRACE = "trace"
"""Name of the scenario that has nothing but the trace."""
STEADY_READER = Reader(pace_tok_s=DEFAULT_PACE_TOK_S)
"""Everybody's, where no population is given: a trace says nothing of who reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceScenario:
    """Lengths, and shared text where a trace has blocks; a conversation is one user."""

    readers: ReaderPopulation | None = None
    """None: all read at the default pace, to the end."""
    fit: Fit = AS_IS
    label: str = field(init=False)
    """The name, with how lengths were changed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", TRACE + self.fit.label)

    def make_session(
        self,
        rows: TraceColumns,
        row: int,
        *,
        session_id: str,
        arrival_s: float,
        tenant: str,
        user: str,
        rng: random.Random,
    ) -> Session:
        """One row as a session."""
        prompt_tokens = rows.prompt_tokens.item(row)
        output_tokens = rows.output_tokens.item(row)
        if self.fit is not AS_IS:
            prompt_tokens = self.fit.prompt(prompt_tokens)
            output_tokens = self.fit.output(output_tokens)
        if rows.blocks is None:
            segments: tuple[Segment, ...] = (Segment(session_id, prompt_tokens),)
        else:
            block_tokens = self.fit.scaled(rows.blocks.block_tokens)
            segments = _segments(rows.blocks.of(row).tolist(), prompt_tokens, block_tokens)
        return Session(
            session_id=session_id,
            arrival_s=arrival_s,
            scenario=self.label,
            tenant=tenant,
            user=user,
            reader=STEADY_READER if self.readers is None else self.readers.draw(rng),
            turns=(Turn(segments=segments, output_tokens=output_tokens),),
        )


def _segments(ids: list[int], prompt_tokens: int, block_tokens: int) -> tuple[Segment, ...]:
    """Whole blocks, then what is left; rounding in a scaled prompt falls to the last one.

    A block that is not whole says its length in its key, so that equal keys are equal lengths.
    """
    segments = []
    left = prompt_tokens
    for index, block in enumerate(ids):
        tokens = left if index == len(ids) - 1 else min(left, block_tokens)
        if not tokens:
            break
        key = f"block/{block}" if tokens == block_tokens else f"block/{block}/{tokens}"
        segments.append(Segment(key, tokens))
        left -= tokens
    return tuple(segments)


def make_trace_scenario(parameters: Mapping[str, object]) -> TraceScenario:
    """The scenario with a workload file's parameters: `readers`, and the fields of `Fit`.

    Raises:
        ValueError: a parameter is unknown or out of range.
    """
    given = dict(parameters)
    readers = given.pop("readers", None)
    fit: dict[str, float | int] = {}
    known = [one.name for one in fields(Fit)]
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"trace has no parameter {key!r}; it has readers, {', '.join(known)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or (key != "length_scale" and not isinstance(value, int)):
            raise ValueError(f"trace: {key} must be a number, whole for tokens, got {value!r}")
        fit[key] = value  # type: ignore[assignment]
    return TraceScenario(
        readers=None if readers is None else make_readers(readers, "trace: readers"),
        fit=Fit(**fit) if fit else AS_IS,  # type: ignore[arg-type]
    )
