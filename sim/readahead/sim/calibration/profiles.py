"""Makes profiles: fitted times, or times carried over, with a device's memory and links."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from readahead.core.latency.iteration import LatencyModel, LatencyPlane
from readahead.core.latency.profile import FitQuality, Link, Profile
from readahead.sim.calibration.quality import Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The shape of a decoder."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    weights: int
    """Parameters."""
    context_tokens_max: int
    head_dim: int | None = None
    """None: the hidden size over the heads."""
    value_bytes: int = 2
    """Of a parameter, and of a number in the KV cache."""

    @property
    def head_size(self) -> int:
        """Numbers of one head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def weights_bytes(self) -> int:
        """Of all parameters."""
        return self.value_bytes * self.weights

    @property
    def kv_token_bytes(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.value_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, by its data sheet, and the links around it."""

    name: str
    memory_bytes: int
    memory_bytes_per_s: float
    flops: float
    """Dense bf16, per second."""
    links: tuple[Link, ...]


def _architecture(name: str, shape: tuple[int, int, int, int, int, int, int, int]) -> Architecture:
    layers, hidden, heads, kv_heads, ffn, vocabulary, weights, context = shape
    return Architecture(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        ffn=ffn,
        vocabulary=vocabulary,
        weights=weights,
        context_tokens_max=context,
    )


ARCHITECTURES: Final = {
    name: _architecture(name, shape)
    for name, shape in {
        "llama-3.1-8b": (32, 4096, 32, 8, 14336, 128256, 8_030_261_248, 131_072),
        "qwen2.5-14b": (48, 5120, 40, 8, 13824, 152064, 14_770_033_664, 131_072),
        "opt-6.7b": (32, 4096, 32, 32, 16384, 50272, 6_658_473_984, 2048),
        "opt-13b": (40, 5120, 40, 40, 20480, 50272, 12_853_473_280, 2048),
        "opt-30b": (48, 7168, 56, 56, 28672, 50272, 29_974_540_288, 2048),
    }.items()
}
"""Shapes as in the models' config.json."""

_VIDUR: Final = "Vidur's send_recv profile"
_PCIE: Final = "nominal; latency assumed"


def _links(nvlink: tuple[float, float], nic: tuple[float, float], pcie: float) -> tuple[Link, ...]:
    rows = (
        ("nvlink", *nvlink, _VIDUR),
        ("infiniband", *nic, f"{_VIDUR}, one NIC across nodes"),
        ("ethernet", 2.3e9, 29e-6, f"{_VIDUR}, pairwise-NVLink boxes; latency as InfiniBand's"),
        ("pcie", pcie, 1e-5, _PCIE),
    )
    return tuple(
        Link(name=name, bytes_per_s=speed, latency_s=delay, origin=origin)
        for name, speed, delay, origin in rows
    )


_A100_LINKS: Final = _links((286e9, 13e-6), (7.8e9, 29e-6), 25e9)
_GIB: Final = 1 << 30
DEVICES: Final = {
    device.name: device
    for device in (
        Device(
            name="a100-80g",
            memory_bytes=80 * _GIB,
            memory_bytes_per_s=2.039e12,
            flops=312e12,
            links=_A100_LINKS,
        ),
        Device(
            name="a100-40g",
            memory_bytes=40 * _GIB,
            memory_bytes_per_s=1.555e12,
            flops=312e12,
            links=_A100_LINKS,
        ),
        Device(
            name="h100",
            memory_bytes=80 * _GIB,
            memory_bytes_per_s=3.35e12,
            flops=989e12,
            links=_links((358e9, 8e-6), (36e9, 19e-6), 50e9),
        ),
    )
}


def gpu(name: str, *, memory_gib: float = 0.0, memory_gb_s: float = 0.0) -> Device:
    """The device of that name, or another of this memory and bandwidth, whose only link is PCIe.

    Raises:
        ValueError: the name is not known, and its memory or bandwidth not given.
    """
    if name in DEVICES:
        return DEVICES[name]
    if memory_gib <= 0 or memory_gb_s <= 0:
        raise ValueError(
            f"device {name!r} is not known (there are {', '.join(DEVICES)}):"
            " its memory (GiB) and memory bandwidth (GB/s) must be given"
        )
    return Device(
        name=name,
        memory_bytes=int(memory_gib * _GIB),
        memory_bytes_per_s=memory_gb_s * 1e9,
        flops=0.0,
        links=(Link(name="pcie", bytes_per_s=25e9, latency_s=1e-5, origin=_PCIE),),
    )


HOST: Final = {"llama-3.1-8b": (0.05e-3, 0.043e-3), "qwen2.5-14b": (0.46e-3, 0.058e-3)}
"""Seconds per iteration and per request that vLLM took over the kernels' sum on an H100."""
MEMORY_SHARE: Final = 0.9
"""Of a device's memory that an engine uses; vLLM's default."""
BLOCK_TOKENS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Iteration times with their story."""

    latency: LatencyModel
    origin: str
    host_origin: str
    derived: bool
    fit: FitQuality | None = None


def fitted(judged: Judged, *, source: str, model: str, on: str) -> Times:
    """Times of a fit to kernels' sums, with the host's part of the model that is nearest."""
    base_s, request_s = HOST.get(model, (0.0, 0.0))
    measured = "ML.ENERGY: median inter-token latency of vLLM on H100 less the sum of kernels"
    carried = "" if on == "h100" else "; carried over from H100, nobody measured it here"
    return Times(
        latency=replace(judged.model, host_base_s=base_s, host_request_s=request_s),
        origin=source,
        host_origin=(measured + carried) if base_s else "none: the fit holds all there is",
        derived=False,
        fit=FitQuality(
            source=source, points=judged.points, seed=judged.settings.seed, kinds=judged.kinds
        ),
    )


def assemble(
    architecture: Architecture,
    device: Device,
    times: Times,
    *,
    devices: int,
    kv_tokens: int | None = None,
) -> Profile:
    """The profile of a model on so many devices, with room for `kv_tokens` of KV, or what is left.

    Raises:
        ValueError: the weights leave no room for KV.
    """
    room = MEMORY_SHARE * device.memory_bytes * devices - architecture.weights_bytes
    tokens = int(room // architecture.kv_token_bytes) if kv_tokens is None else kv_tokens
    name = f"{architecture.name}-{device.name}"
    if tokens < BLOCK_TOKENS:
        raise ValueError(f"{name}: the weights leave no room for KV on {devices} devices")
    return Profile(
        name=name,
        model=architecture.name,
        device=device.name,
        devices=devices,
        latency=replace(times.latency, name=f"{architecture.name} on {devices} x {device.name}"),
        weights_bytes=architecture.weights_bytes,
        kv_token_bytes=architecture.kv_token_bytes,
        kv_capacity_tokens=tokens,
        block_tokens=BLOCK_TOKENS,
        context_tokens_max=architecture.context_tokens_max,
        links=device.links,
        origin=times.origin,
        host_origin=times.host_origin,
        derived=times.derived,
        fit=times.fit,
    )


def carried_over(
    times: Times, architecture: Architecture, frm: Device, to: Device, *, devices: int = 1
) -> Times:
    """Times on another device by peaks alone; labelled as derived.

    What grows with tokens and pairs goes with the ratio of peak compute, what grows with past
    tokens with the ratio of memory bandwidth. A base is weights read plus overhead: of it, and at
    most all of it, the time of reading the weights once at peak bandwidth goes with bandwidth.
    """
    compute = frm.flops / to.flops
    memory = frm.memory_bytes_per_s / to.memory_bytes_per_s
    weights_s = architecture.weights_bytes / devices / frm.memory_bytes_per_s

    def moved(plane: LatencyPlane) -> LatencyPlane:
        read_s = min(plane.base_s, weights_s)
        return replace(
            plane,
            token_s=plane.token_s * compute,
            prefill_pair_s=plane.prefill_pair_s * compute,
            past_token_s=plane.past_token_s * memory,
            base_s=plane.base_s - read_s + read_s * memory,
        )

    tiles = times.latency.tile_s
    return replace(
        times,
        latency=replace(
            times.latency,
            planes=tuple(moved(p) for p in times.latency.planes),
            tile_s=tiles and replace(tiles, values=tuple(v * compute for v in tiles.values)),
        ),
        origin=f"derived from {frm.name} by ratios of peak compute and memory bandwidth: "
        + times.origin,
        derived=True,
        fit=None,
    )
