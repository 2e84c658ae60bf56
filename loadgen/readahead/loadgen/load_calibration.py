"""How long the first token takes on an idle system: a few requests, one at a time, before a run."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from readahead.core.reading.benefit import DEFAULT_PACE_TOK_S
from readahead.loadgen.load_promises import fit_zero_load_ttft
from readahead.loadgen.senders import Sender, SendOptions
from readahead.loadgen.session_run import RunLimits, SessionRun
from readahead.ruler.promises import ZeroLoadTtft
from readahead.workload.prompts import Prompts
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn

SHARES = (0.05, 0.5, 0.95)
"""Quantiles of the run's prompt lengths that are tried."""
REPEATS = 4
"""Of each length; the first round warms the system up and is not counted."""
OUTPUT_TOKENS = 2


def promises_anything(sessions: Sequence[Session]) -> bool:
    """Whether any turn has a promise that needs the zero-load TTFT."""
    return any(turn.slo is not None for session in sessions for turn in session.turns)


def calibration_lengths(sessions: Sequence[Session]) -> list[int]:
    """Prompt lengths to try, tokens, ascending, each once."""
    lengths = sorted(session.prompt_tokens(0) for session in sessions)
    return sorted({lengths[round(share * (len(lengths) - 1))] for share in SHARES})


async def measure_zero_load_ttft(
    sender: Sender, options: SendOptions, prompts: Prompts, *, lengths: Sequence[int]
) -> ZeroLoadTtft:
    """Runs the calibration, in a closed loop of one user.

    Raises:
        ValueError: no request got a first token.
    """
    sessions = [_alone(index, tokens) for index, tokens in enumerate(REPEATS * tuple(lengths))]
    run = SessionRun(
        sender,
        options,
        RunLimits(requests_max=1),
        texts=lambda segment: prompts.prompt([segment]),
        run_id=f"calibrate-{uuid.uuid4().hex[:8]}",
    )
    await run.offer_closed(sessions, users=1)
    samples = [
        (record.prompt_tokens, record.frame_times_s[0] - record.sent_s)
        for record in run.records[len(lengths) :]
        if len(record.frame_times_s)
    ]
    return fit_zero_load_ttft(samples)


def _alone(index: int, tokens: int) -> Session:
    return Session(
        session_id=f"calibration-{index}",
        arrival_s=0.0,
        scenario="calibration",
        tenant="default",
        user="",
        reader=Reader(pace_tok_s=DEFAULT_PACE_TOK_S, tells_pace=False),
        turns=(
            Turn(
                segments=(Segment(f"calibration/{index}", tokens),),
                output_tokens=OUTPUT_TOKENS,
                has_reader=False,
            ),
        ),
    )
