"""Iteration times whose coefficients others published: OPT on A100 and H100."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from readahead.core.latency.iteration import LatencyModel, LatencyPlane
from readahead.core.latency.profile import Profile
from readahead.sim.calibration.profiles import (
    ARCHITECTURES,
    DEVICES,
    Architecture,
    Device,
    Times,
    assemble,
    carried_over,
)

_SLOS_SERVE: Final = (
    "SLOs-Serve's constants, fitted end to end by its authors (tokens, draft steps, base);"
    " their plane knows no context: past tokens added at 80 % of memory bandwidth"
)
_DISTSERVE: Final = (
    "DistServe's fit of vLLM's iterations, OPT-13B, one A100-80G (Apache-2.0, @82831f1)"
)
_HOST: Final = "in the planes: they were fitted end to end"
_KV_BANDWIDTH_SHARE: Final = 0.8

_SLOS_PLANES: Final = {
    ("opt-6.7b", "a100-40g"): (1, ((6.878e-5, 1.2e-6, 0.02480), (7.523e-5, 0.003465, 0.003033))),
    ("opt-13b", "a100-40g"): (2, ((7.213e-5, 0.003341, 0.03173),)),
    ("opt-30b", "a100-40g"): (4, ((9.314e-5, 0.002797, 0.03788),)),
    ("opt-13b", "h100"): (1, ((4.177e-5, 0.0, 0.02743),)),
}
"""Model and device: GPUs of one copy, and planes as (token_s, draft_step_s, base_s)."""

_DERIVED: Final = (
    ("opt-6.7b", "a100-80g"),
    ("opt-6.7b", "h100"),
    ("opt-30b", "a100-80g"),
    ("opt-30b", "h100"),
)
"""Carried over from the A100-40G, on as many GPUs."""

_OPT_13B_A100_80G: Final = (
    LatencyPlane(
        token_s=1.4050923870128956e-4,
        prefill_pair_s=2 * 8.076584822611088e-9,
        base_s=22.052204789310185e-3,
    ),
    LatencyPlane(
        request_s=6.0726861260369455e-5,
        past_token_s=5.92934466077393e-7,
        base_s=23.475041008414784e-3,
    ),
    LatencyPlane(
        request_s=1.200031385587413e-4,
        past_token_s=4.907727036234946e-7,
        base_s=20.206356173691958e-3,
    ),
)
"""Prefill, a + b·Σ length + c·Σ length², where a length² is two pairs; decoding of small and of
large batches, a + b·Σ context + c·batch. Theirs change at a batch of 95, ours where they cross."""


def opt_profiles() -> Iterator[Profile]:
    """Nine of them: OPT-6.7B, 13B and 30B on A100-80G, A100-40G and H100."""
    for (model, device), (devices, planes) in _SLOS_PLANES.items():
        architecture, gpu = ARCHITECTURES[model], DEVICES[device]
        times = slos_serve(architecture, gpu, devices=devices, planes=planes)
        yield assemble(architecture, gpu, times, devices=devices)
    times = Times(
        latency=LatencyModel(name="opt-13b", planes=_OPT_13B_A100_80G),
        origin=_DISTSERVE,
        host_origin=_HOST,
        derived=False,
    )
    yield assemble(ARCHITECTURES["opt-13b"], DEVICES["a100-80g"], times, devices=1)
    frm = DEVICES["a100-40g"]
    for model, device in _DERIVED:
        architecture, gpu = ARCHITECTURES[model], DEVICES[device]
        devices, planes = _SLOS_PLANES[model, frm.name]
        times = slos_serve(architecture, frm, devices=devices, planes=planes)
        moved = carried_over(times, architecture, frm, gpu, devices=devices)
        yield assemble(architecture, gpu, moved, devices=devices)


def slos_serve(
    architecture: Architecture,
    device: Device,
    *,
    devices: int,
    planes: tuple[tuple[float, float, float], ...],
) -> Times:
    """Published planes with the time of reading KV added, which they lack."""
    speed = _KV_BANDWIDTH_SHARE * device.memory_bytes_per_s * devices
    past_token_s = architecture.kv_token_bytes / speed
    return Times(
        latency=LatencyModel(
            name=architecture.name,
            planes=tuple(
                LatencyPlane(
                    token_s=token_s,
                    draft_step_s=step_s,
                    base_s=base_s,
                    past_token_s=past_token_s,
                )
                for token_s, step_s, base_s in planes
            ),
        ),
        origin=_SLOS_SERVE,
        host_origin=_HOST,
        derived=False,
    )
