"""The profiles that ship with the project, made from the public tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from readahead.core.latency.profile import Profile
from readahead.sim.calibration.fit import FitSettings
from readahead.sim.calibration.points import read_composed
from readahead.sim.calibration.profiles import (
    ARCHITECTURES,
    DEVICES,
    assemble,
    carried_over,
    fitted,
)
from readahead.sim.calibration.published import opt_profiles
from readahead.sim.calibration.quality import judge

_AICONFIGURATOR: Final = (
    "composed from aiconfigurator's measured vLLM kernels, bf16 (Apache-2.0, @095f58a)"
)
COMPOSED: Final = {
    ("llama-3.1-8b", "a100-80g"): ("a100_llama3-8b", ""),
    ("llama-3.1-8b", "h100"): ("h100_llama3-8b", ""),
    ("qwen2.5-14b", "a100-80g"): ("a100_qwen2.5-14b", ""),
    ("qwen2.5-14b", "h100"): (
        "h100_qwen3-14b",
        "; Qwen3-14B's times (40 layers instead of 48): Qwen2.5-14B has no table on H100",
    ),
}
"""Model and device: the composed table, and what is to be said of it."""


def shipped(tables: Path, *, settings: FitSettings, mixing: float) -> Iterator[Profile]:
    """Every profile that ships. `tables` holds the composed tables.

    `mixing` is put into the fitted models: the composed tables add both attentions up and so
    hold none; it comes from a device on which mixed batches were measured.

    Raises:
        OSError: a table is not there.
    """
    for (model, device), (table, remark) in COMPOSED.items():
        points = read_composed(tables / f"composed_{table}_aic.csv.gz")
        judged = judge(points, name=table, settings=settings)
        judged = replace(judged, model=replace(judged.model, mixing=mixing))
        source = (
            f"{_AICONFIGURATOR}, composed_{table}_aic{remark}; mixing {mixing:g} from batches"
            " measured on RTX PRO 6000 (LLMServingSim, MIT, @5daddb2), as the table has none"
        )
        times = fitted(judged, source=source, model=model, on=device)
        times = replace(times, derived=bool(remark))
        architecture, gpu = ARCHITECTURES[model], DEVICES[device]
        yield assemble(architecture, gpu, times, devices=1)
        if device == "a100-80g":
            smaller = DEVICES["a100-40g"]
            moved = carried_over(times, architecture, gpu, smaller)
            yield assemble(architecture, smaller, moved, devices=1)
    yield from opt_profiles()
