"""The mechanisms of `readahead` that can be switched off in the simulator, and what switches them.

A mechanism that gets a switch is one line of FACTORS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from readahead.core.config import CoreConfig, MigrationConfig, PlacementConfig
from readahead.sim.cluster import ClusterSpec
from readahead.sim.drafts import Predictability
from readahead.sim.experiments.capacity_cells import FRESH_S, MACHINES, OUTPUT_TOKENS_MAX, PATIENT
from readahead.sim.settings import ClusterSettings

POLICY = "readahead"
MACHINE = "13B-A100"
"""Two copies, and the least KV memory of the paper's clusters, so that moves and parking count."""
Pair = tuple[object, object]
"""A setting with the mechanism off, and on."""
SWITCH: Pair = (False, True)

DRAFT_TOKENS = 4
DRAFT_STEP_S = 0.002
"""Of one drafted token of the whole batch: a model of 125 million parameters, as the paper drafts
with. An assumption; nobody measured it."""
PREDICTABILITY = Predictability(mean=0.6, spread=0.15)
"""Of drafts; the mean is the paper's."""
HOST_BYTES = 128 * 2**30
"""Host memory of each worker for parked KV: some 2.7 times what its two GPUs hold."""
HELD_PROMPTS = (256, 4)
"""Prompts that a prefill worker holds: all that come, or what hides a round trip."""

COLOCATED, SPLIT = "colocated", "split"
PREFILL = {COLOCATED: 0, SPLIT: 1}
"""Prefill workers of each shape of the cluster."""
SHAPE_WORDS = {COLOCATED: "two workers that do both", SPLIT: "one prefill, one decode worker"}
BOTH = (COLOCATED, SPLIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One mechanism, and each setting that it switches."""

    words: str
    knobs: Mapping[str, Pair] = field(default_factory=dict)
    """Of the policy."""
    settings: Mapping[str, Pair] = field(default_factory=dict)
    """Of ClusterSettings."""
    migration: Mapping[str, Pair] = field(default_factory=dict)
    """Of MigrationConfig."""
    placement: Mapping[str, Pair] = field(default_factory=dict)
    """Of PlacementConfig."""
    shapes: tuple[str, ...] = (COLOCATED,)
    """Clusters in which it is a factor. In others its knobs are as they are by default, and its
    other settings off."""


FACTORS: Mapping[str, Factor] = {
    "sacrifice": Factor(words="sacrifice set", knobs={"sacrifice": SWITCH}, shapes=BOTH),
    "align": Factor(words="prompt-aligned batches", knobs={"align": SWITCH}),
    "sit_out": Factor(words="sit-out", knobs={"sit_out": SWITCH}),
    "migration": Factor(words="migration", migration={"trigger": ("none", "need")}),
    "parking": Factor(
        words="parking", knobs={"park": SWITCH}, settings={"host_bytes": (0, HOST_BYTES)}
    ),
    "speculation": Factor(words="speculation", settings={"draft_tokens_max": (0, DRAFT_TOKENS)}),
    "late_binding": Factor(
        words="late binding", settings={"prefill_credits": HELD_PROMPTS}, shapes=(SPLIT,)
    ),
    "elastic_roles": Factor(
        words="elastic roles", placement={"roles": ("static", "elastic")}, shapes=(SPLIT,)
    ),
}


def factors_of(shape: str) -> list[str]:
    """The factors in such a cluster."""
    return [name for name, factor in FACTORS.items() if shape in factor.shapes]


def ablated(shape: str, off: frozenset[str]) -> ClusterSpec:
    """A cluster with all its mechanisms on but these. Nobody is rejected.

    Raises:
        ValueError: one of these is no factor in such a cluster.
    """
    there = factors_of(shape)
    if unknown := off - set(there):
        raise ValueError(f"no factor of {shape}: {', '.join(sorted(unknown))}")
    knobs: dict[str, object] = {}
    settings: dict[str, object] = {}
    migration: dict[str, object] = {}
    placement: dict[str, object] = {}
    for name, factor in FACTORS.items():
        is_on = name in there and name not in off
        if name in there:
            knobs |= _set(factor.knobs, is_on)
        settings |= _set(factor.settings, is_on)
        migration |= _set(factor.migration, is_on)
        placement |= _set(factor.placement, is_on)
    machine = MACHINES[MACHINE]
    spec = ClusterSettings(
        profile=machine.profile,
        prefill=PREFILL[shape],
        decode=machine.workers - PREFILL[shape],
        link="nvlink",
        policy=POLICY,
        knobs=knobs,  # type: ignore[arg-type]
        output_tokens_max=min(OUTPUT_TOKENS_MAX, machine.found.context_tokens_max),
        stretch_s_max=FRESH_S,
        draft_step_s=DRAFT_STEP_S,
        **settings,  # type: ignore[arg-type]
    ).spec()
    told = MigrationConfig(
        kv_token_bytes=spec.kv_token_bytes,
        link_bytes_per_s=spec.link.bytes_per_s,
        link_latency_s=spec.link.latency_s,
        **migration,  # type: ignore[arg-type]
    )
    core = CoreConfig(
        admission=PATIENT,
        migration=told,
        placement=PlacementConfig(**placement),  # type: ignore[arg-type]
    )
    return replace(spec, core=core, predictability=PREDICTABILITY)


def _set(pairs: Mapping[str, Pair], is_on: bool) -> dict[str, object]:
    return {name: pair[is_on] for name, pair in pairs.items()}
