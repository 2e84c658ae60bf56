"""What scenarios promise, in seconds: their bounds are multiples of the zero-load TTFT."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from readahead.core.reading.curves import Slo
from readahead.loadgen.report_runs import PromiseOf
from readahead.workload.slo import SloClass

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


def fit_zero_load_ttft(samples: Sequence[tuple[int, float]]) -> ZeroLoadTtft:
    """Least squares over (prompt tokens, TTFT in seconds) of requests that ran alone.

    Neither the base nor the slope is below 0: where the best line has a negative one, the best
    line without it is taken.

    Raises:
        ValueError: there is nothing to fit.
    """
    if not samples:
        raise ValueError("no request of the calibration got a first token")
    n = len(samples)
    mean_x = math.fsum(x for x, _ in samples) / n
    mean_y = math.fsum(y for _, y in samples) / n
    square = math.fsum((x - mean_x) ** 2 for x, _ in samples)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in samples) / square if square else 0.0
    base_s = mean_y - slope * mean_x
    if slope < 0:
        slope, base_s = 0.0, mean_y
    elif base_s < 0:
        slope = math.fsum(x * y for x, y in samples) / math.fsum(x * x for x, _ in samples)
        base_s = 0.0
    lengths = sorted({x for x, _ in samples})
    return ZeroLoadTtft(
        base_s=base_s,
        per_token_s=slope,
        origin=f"measured: {n} requests alone, prompts of {lengths[0]} to {lengths[-1]} tokens",
    )


def zero_load_ttft_of(description: Mapping[str, object]) -> ZeroLoadTtft | None:
    """As a run's description has it; None where it has none."""
    found = description.get("zero_load_ttft")
    if not isinstance(found, Mapping):
        return None
    base_s, per_token_s = found.get("base_s"), found.get("per_token_s")
    if not isinstance(base_s, int | float) or not isinstance(per_token_s, int | float):
        return None
    return ZeroLoadTtft(
        base_s=float(base_s), per_token_s=float(per_token_s), origin=str(found.get("origin", ""))
    )


def promises(zero_load: ZeroLoadTtft) -> PromiseOf:
    """What each record's request was promised by the class of its scenario."""

    def promise_of(fields: Mapping[str, object]) -> Slo | None:
        named = _slo_class(fields.get("slo_class"))
        prompt_tokens = fields.get("prompt_tokens")
        if named is None or not isinstance(prompt_tokens, int):
            return None
        thinking = fields.get("thinking_tokens")
        return named.curve(
            zero_load_ttft_s=zero_load.of(prompt_tokens),
            thinking_tokens=thinking if isinstance(thinking, int) else 0,
        )

    return promise_of


def _slo_class(fields: object) -> SloClass | None:
    """The class that a record carries; None where it has none that can be read."""
    if not isinstance(fields, Mapping):
        return None
    slowdown, tpot_s = fields.get("ttft_slowdown"), fields.get("tpot_s")
    think_s = fields.get("think_tpot_s")
    if not isinstance(slowdown, int | float) or not isinstance(tpot_s, int | float):
        return None
    return SloClass(
        name=str(fields.get("name", "")),
        ttft_slowdown=float(slowdown),
        tpot_s=float(tpot_s),
        think_tpot_s=float(think_s) if isinstance(think_s, int | float) else None,
    )
