"""What an SLO class promises, in seconds: its bounds are multiples of the zero-load TTFT."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_FORM = re.compile(r"\s*([0-9.eE+-]+?)\s*(?:\+\s*([0-9.eE+-]+)\s*\*\s*tokens)?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroLoadTtft:
    """Time to the first token on an idle system, as a line over the prompt's length."""

    base_s: float
    per_token_s: float
    origin: str
    """How it came about, for the report."""

    def __post_init__(self) -> None:
        for name in ("base_s", "per_token_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, is {value}")
        if not self.base_s + self.per_token_s > 0:
            raise ValueError("a zero-load TTFT must be above 0")

    def of(self, prompt_tokens: int) -> float:
        """Of a prompt of this length, seconds."""
        return self.base_s + self.per_token_s * prompt_tokens

    def describe(self) -> dict[str, object]:
        """For the description of a run."""
        return asdict(self)


def parse_zero_load_ttft(text: str) -> ZeroLoadTtft:
    """Reads "0.02+0.0001*tokens" or "0.05", seconds.

    Raises:
        ValueError: it is neither; the message says what was expected.
    """
    match = _FORM.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        base_s, per_token_s = float(match[1]), float(match[2] or 0.0)
    except ValueError:
        raise ValueError(
            f"a zero-load TTFT is as 0.02+0.0001*tokens, in seconds, got {text!r}"
        ) from None
    return ZeroLoadTtft(base_s=base_s, per_token_s=per_token_s, origin="given")


def zero_load_ttft_of(description: Mapping[str, object]) -> ZeroLoadTtft | None:
    """As a run's description has it; None where it has none that can be used."""
    found = description.get("zero_load_ttft")
    if not isinstance(found, Mapping):
        return None
    base_s, per_token_s = found.get("base_s"), found.get("per_token_s")
    if not isinstance(base_s, int | float) or not isinstance(per_token_s, int | float):
        return None
    try:
        return ZeroLoadTtft(
            base_s=float(base_s),
            per_token_s=float(per_token_s),
            origin=str(found.get("origin", "")),
        )
    except ValueError:
        return None
