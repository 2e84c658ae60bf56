"""A model on a device: its iteration times, its memory and its links, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.config import require
from readahead.core.latency.iteration import LatencyModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A way on which KV moves."""

    name: str
    bytes_per_s: float
    latency_s: float
    origin: str

    def __post_init__(self) -> None:
        require(f"link {self.name}: bytes_per_s", self.bytes_per_s, least=1)
        require(f"link {self.name}: latency_s", self.latency_s, least=0)

    def transfer_s(self, size_bytes: float) -> float:
        """Seconds that so much takes, alone on the link."""
        return self.latency_s + size_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFit:
    """How a model did on held-out iterations of one kind."""

    kind: str
    """prefill, decode, mixed, or all."""
    points: int
    r2: float
    mape: float
    """Mean absolute relative error; 0.02 is 2 %."""
    p95: float
    """The relative error that 95 % of the points stay below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuality:
    """What a model was fitted to and how well."""

    source: str
    """The table, and the commit of the data it was made from."""
    points: int
    seed: int
    kinds: tuple[KindFit, ...]
    """On points held out of the fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a simulated or emulated engine is."""

    name: str
    """As in --profile."""
    model: str
    device: str
    devices: int
    """GPUs that serve one copy (tensor parallel)."""
    latency: LatencyModel
    weights_bytes: int
    kv_token_bytes: int
    """KV of one token, over all devices."""
    kv_capacity_tokens: int
    """Tokens of KV that fit beside the weights."""
    block_tokens: int
    context_tokens_max: int
    links: tuple[Link, ...]
    origin: str
    """Where the iteration times come from, and under which licence."""
    host_origin: str
    """Where the host's part comes from."""
    derived: bool
    """The times were carried over from another device by a rule; nobody measured them."""
    fit: FitQuality | None
    """None where the coefficients were published as they are, or carried over."""

    def __post_init__(self) -> None:
        for field in (
            "devices",
            "weights_bytes",
            "kv_token_bytes",
            "kv_capacity_tokens",
            "block_tokens",
            "context_tokens_max",
        ):
            require(f"{self.name}: {field}", getattr(self, field), least=1)

    @property
    def kv_blocks(self) -> int:
        """Whole blocks of KV."""
        return self.kv_capacity_tokens // self.block_tokens

    def quality_line(self) -> str:
        """How far its times can be trusted, in a line for reports."""
        if self.fit is None:
            how = "carried over, not measured" if self.derived else "published as they are"
            return f"{self.name}: {how}: {self.origin}"
        kinds = ", ".join(
            f"{kind.kind} R² {kind.r2:.4f} MAPE {kind.mape:.1%}"
            for kind in self.fit.kinds
            if kind.kind != "all"
        )
        like = ", of a like model" if self.derived else ""
        return f"{self.name}: held out of {self.fit.points} points: {kinds}{like}"

    def link(self, name: str) -> Link:
        """The link of that name.

        Raises:
            ValueError: there is none; names those there are.
        """
        for link in self.links:
            if link.name == name:
                return link
        known = ", ".join(link.name for link in self.links)
        raise ValueError(f"{self.name} has no link {name!r}; it has {known}")
