"""What a metric of the ruler says about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; docs/reference/metrics.md is made of these."""

    name: str
    unit: str
    formula: str
    source: str
    undefined: str
    """When it has no value, or "never"."""
