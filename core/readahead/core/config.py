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

    def __post_init__(self) -> None:
        require("admission.queue_requests_max", self.queue_requests_max, least=1)
        require("admission.wait_s_max", self.wait_s_max, least=0.1, most=3600)
        require("admission.attempts_max", self.attempts_max, least=1, most=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConfig(Checked):
    """Where a request goes."""

    remote_prefill_tokens_min: int = 32
    """Shorter prompts are computed on the decode worker: a handover costs it more."""

    def __post_init__(self) -> None:
        require("placement.remote_prefill_tokens_min", self.remote_prefill_tokens_min, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig(Checked):
    """What is assumed of a reader who says nothing."""

    pace_tok_s: float = 5.0
    """Tokens per second; an adult reads 3-4 words per second."""

    def __post_init__(self) -> None:
        require("reading.pace_tok_s", self.pace_tok_s, least=0.01, most=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig(Checked):
    """All of the core's settings."""

    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
