"""What a scenario promises, as a request tells it."""

from __future__ import annotations

from readahead.loadgen.request import Promised
from readahead.ruler.promises import ZeroLoadTtft
from readahead.workload.session import Session


def promised(session: Session, turn: int, zero_load: ZeroLoadTtft) -> Promised | None:
    """The bounds by which the run is scored, too; None where the turn promises nothing.

    The first token's is a multiple of the idle system's time for the prompt's planned length.
    """
    planned = session.turns[turn]
    slo = planned.slo
    if slo is None:
        return None
    has_stages = bool(planned.thinking_tokens) and slo.think_tpot_s is not None
    return Promised(
        ttft_s=slo.ttft_slowdown * zero_load.of(session.prompt_tokens(turn)),
        tpot_s=slo.tpot_s,
        think_tpot_s=slo.think_tpot_s if has_stages else None,
        thinking_tokens=planned.thinking_tokens if has_stages else None,
    )
