"""Names of the policies that an engine may run under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from readahead.core.planning.policies.registry import POLICIES, make_policy
from readahead.core.planning.policy import BatchPolicy

STOCK: Final = "vllm"
"""The scheduler steps aside: vLLM's own order. The planner of that name, version 0 of vLLM's
engine, is for the simulator."""

POLICY_NAMES: Final = (STOCK, *(name for name in POLICIES if name != STOCK))


def make_engine_policy(name: str, knobs: Mapping[str, float]) -> BatchPolicy | None:
    """The policy of this name, with some knobs turned; None for `STOCK`, which has none.

    Raises:
        ValueError: none has this name, it has no such knob, or the value is out of range.
    """
    if name not in POLICY_NAMES:
        raise ValueError(f"policy must be one of {', '.join(POLICY_NAMES)}, is {name!r}")
    if name == STOCK:
        if knobs:
            raise ValueError(f"{next(iter(knobs))} is no knob of {STOCK}, which has none")
        return None
    return make_policy(name, knobs)
