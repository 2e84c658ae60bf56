"""Whom the capacity experiment compares: policies, each with the knobs that are searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from readahead.core.planning.policies.registry import POLICIES
from readahead.sim.experiments.capacity_cells import Arm, Machine

OURS, YARDSTICK, PLANNER = "readahead", "slack", "slos-serve"
CLASSIC = ("vllm", "vllm-chunked", "sarathi", "distserve")
"""The best of these is what the paper compares with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A policy with all the knobs that are searched, the likeliest first."""

    arms: Mapping[str, Arm]
    sees_promise: bool = True
    """Whether it looks at due times or paces. If not, one run serves for both kinds of promise."""


def _arms(policy: str, knob: str, values: Sequence[float]) -> dict[str, Arm]:
    return {f"{knob} {value:g}": Arm(policy=policy, knobs={knob: value}) for value in values}


def _pools(workers: int) -> dict[str, Arm]:
    return {
        f"{prefill}P{workers - prefill}D": Arm(policy="vllm", prefill=prefill)
        for prefill in range(1, workers)
    }


def _moves() -> dict[str, Arm]:
    found = {}
    for below, gap in ((4096.0, 512.0), (512.0, 64.0)):
        migration: dict[str, float | str] = {
            "trigger": "load",
            "load_below_tokens": below,
            "load_gap_tokens": gap,
        }
        found[f"load_below_tokens {below:g}"] = Arm(policy="vllm-chunked", migration=migration)
    return found


def _planners() -> dict[str, Arm]:
    """With answers' lengths known, as its paper assumes, and learned from those that ended."""
    return {
        "lengths known": Arm(policy=PLANNER, knobs={"reserve_whole": True}, knows_lengths=True),
        "lengths learned": Arm(policy=PLANNER),
        "tiers of pace": Arm(policy=PLANNER, knobs={"slack_tiers": False}),
    }


def rivals(machine: Machine) -> dict[str, Rival]:
    """All policies that this cluster can be run with."""
    found = {
        "vllm": Rival(arms=_arms("vllm", "batch_tokens", (2048, 8192)), sees_promise=False),
        "vllm-chunked": Rival(
            arms=_arms("vllm-chunked", "batch_tokens", (1024, 512, 2048)), sees_promise=False
        ),
        "sarathi": Rival(
            arms=_arms("sarathi", "chunk_tokens", (512, 1024, 2048)), sees_promise=False
        ),
        "distserve": Rival(arms=_pools(machine.workers), sees_promise=False),
        "andes": Rival(arms=_arms("andes", "batch_tokens", (2048, 1024))),
        "tokenflow": Rival(arms=_arms("tokenflow", "batch_tokens", (2048, 1024))),
        "llumnix": Rival(arms=_moves(), sees_promise=False),
        YARDSTICK: Rival(arms=_arms(YARDSTICK, "cap_tokens", (2048, 8192))),
        PLANNER: Rival(arms=_planners()),
        OURS: Rival(
            arms={
                **_arms(OURS, "rich_s", (2, 4)),
                "sit_out off": Arm(policy=OURS, knobs={"sit_out": False}),
            }
        ),
    }
    if machine.workers == 1:
        del found["distserve"], found["llumnix"]
    if PLANNER not in POLICIES:
        del found[PLANNER]
    return found
