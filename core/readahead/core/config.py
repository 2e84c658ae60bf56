"""Settings of the decision core. Plain dataclasses, checked as they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar


class Checked:
    """Base of every settings dataclass: unknown keys are refused when one is read from a file."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "use_attribute_docstrings": True}


def require(field_name: str, value: float, *, least: float, most: float = math.inf) -> None:
    """Checks that a number is finite and within [least, most].

    Raises:
        ValueError: it is not; names the field and the bound.
    """
    if not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"{field_name} must be in [{least:g}, {most:g}], got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionConfig(Checked):
    """When a request is let in, and how long and how often it is tried."""

    queue_requests_max: int = 1024
    """Most requests that wait in the router; the next one is rejected as OVERLOADED."""
    wait_s_max: float = 60.0
    """Longest wait for a worker; after it a request is rejected."""
    attempts_max: int = 3
    """Most tries of a request that has delivered nothing yet."""
    best_effort_requests_max: int = 1024
    """Most live requests that workers' planners have declined and serve from what is left over; one
    more that is declined before its first token is rejected as OVERLOADED."""

    def __post_init__(self) -> None:
        require("admission.queue_requests_max", self.queue_requests_max, least=1)
        require("admission.wait_s_max", self.wait_s_max, least=0.1, most=3600)
        require("admission.attempts_max", self.attempts_max, least=1, most=10)
        require("admission.best_effort_requests_max", self.best_effort_requests_max, least=0)


PLACEMENT_ROLES = ("static", "elastic")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConfig(Checked):
    """Where a request goes."""

    remote_prefill_tokens_min: int = 32
    """Shorter prompts are computed on the decode worker: a handover costs it more."""
    roles: str = "static"
    """"static": prompts are computed on prefill workers and handed over; "elastic": wherever the
    first token is likely to come first."""
    chunk_tokens: int = 1024
    """A decode worker takes a prompt while each of its readers has enough left to read for an
    iteration with so many prompt tokens; the most that its engine puts into one. ("elastic")"""
    keep_queue_s: float = 0.15
    """A prefill worker generates the answer itself while its queue of prompts is shorter; 0: it
    hands all of them over. ("elastic")"""

    def __post_init__(self) -> None:
        require("placement.remote_prefill_tokens_min", self.remote_prefill_tokens_min, least=0)
        if self.roles not in PLACEMENT_ROLES:
            known = ", ".join(PLACEMENT_ROLES)
            raise ValueError(f"placement.roles must be one of {known}, got {self.roles!r}")
        require("placement.chunk_tokens", self.chunk_tokens, least=1)
        require("placement.keep_queue_s", self.keep_queue_s, least=0, most=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig(Checked):
    """What is assumed of a reader who says nothing."""

    pace_tok_s: float = 5.0
    """Tokens per second; an adult reads 3-4 words per second."""

    def __post_init__(self) -> None:
        require("reading.pace_tok_s", self.pace_tok_s, least=0.01, most=1000)


MIGRATION_TRIGGERS = ("none", "load", "cover", "need")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationConfig(Checked):
    """When a running request goes to another decode worker."""

    trigger: str = "none"
    """"none"; "load": whenever loads differ; "cover": likewise, but only while unread text hides
    it; "need": only for a reader who has nothing left to read, and gains by it."""
    interval_s: float = 0.25
    """How often it is looked at who might move."""
    cooldown_s: float = 10.0
    """A request that has moved, or failed to, stays for at least this long."""
    moves_per_worker_max: int = 2
    """Most moves that a worker is part of at once, from it and to it."""
    downtime_s: float = 0.05
    """For which a request that moves makes no tokens: some two iterations and 10 ms."""
    margin_s: float = 0.1
    """Of slack beyond the downtime ("cover"); of idle time beyond what the move costs ("need")."""
    horizon_s: float = 10.0
    """How far ahead idle time is forecast ("need")."""
    kv_share_max: float = 0.9
    """A worker whose KV memory would be fuller than this is no target."""
    load_below_tokens: float = 512.0
    """A worker sheds load once each of its requests can make fewer tokens than this before KV
    memory is full; about one answer."""
    load_gap_tokens: float = 64.0
    """The target must be able to make so many more."""
    kv_token_bytes: int = 131_072
    """KV of one token; that of Llama-3.1-8B in 16 bits."""
    link_bytes_per_s: float = 7.8e9
    """Between two decode workers; one network card of an A100 node."""
    link_latency_s: float = 0.001
    """Until the first byte moves."""

    def __post_init__(self) -> None:
        if self.trigger not in MIGRATION_TRIGGERS:
            known = ", ".join(MIGRATION_TRIGGERS)
            raise ValueError(f"migration.trigger must be one of {known}, got {self.trigger!r}")
        require("migration.interval_s", self.interval_s, least=0.01, most=60)
        require("migration.cooldown_s", self.cooldown_s, least=0, most=3600)
        require("migration.moves_per_worker_max", self.moves_per_worker_max, least=1, most=64)
        require("migration.downtime_s", self.downtime_s, least=0, most=60)
        require("migration.margin_s", self.margin_s, least=0, most=60)
        require("migration.horizon_s", self.horizon_s, least=0.1, most=600)
        require("migration.kv_share_max", self.kv_share_max, least=0, most=1)
        require("migration.load_below_tokens", self.load_below_tokens, least=0)
        require("migration.load_gap_tokens", self.load_gap_tokens, least=0)
        require("migration.kv_token_bytes", self.kv_token_bytes, least=1)
        require("migration.link_bytes_per_s", self.link_bytes_per_s, least=1)
        require("migration.link_latency_s", self.link_latency_s, least=0, most=60)

    def landing_s(self, context_tokens: int) -> float:
        """Seconds from the start of a move to its first token at the target."""
        copy_s = context_tokens * self.kv_token_bytes / self.link_bytes_per_s
        return self.link_latency_s + copy_s + self.downtime_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig(Checked):
    """All of the core's settings."""

    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    migration: MigrationConfig = field(default_factory=MigrationConfig)
