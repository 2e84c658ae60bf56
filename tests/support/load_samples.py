"""Records of load made by arithmetic alone, for reports to be made of."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRun:
    """A run whose records are written, not measured."""

    rate_req_s: float = 4.0
    requests: int = 24
    seed: int = 0
    slowness: float = 1.0
    """Times of tokens are stretched by this."""
    engine: str = "emulated"
    scenarios: tuple[str, ...] = ("chatbot", "coder")
    invalid_because: tuple[str, ...] = ()
    target: str = "http://127.0.0.1:8000"

    def write(self, path: Path) -> Path:
        """Writes records and description."""
        rng = random.Random(self.seed)
        arrival_s, lines = 0.0, []
        for index in range(self.requests):
            arrival_s += rng.expovariate(self.rate_req_s)
            lines.append(json.dumps(self._record(index, arrival_s, rng)))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        meta = path.with_name(f"{path.name}.meta.json")
        meta.write_text(json.dumps(self._description()), encoding="utf-8")
        return path

    def _record(self, index: int, arrival_s: float, rng: random.Random) -> dict[str, Any]:
        times_s, at_s = [], arrival_s + 0.2 * self.slowness
        for token in range(20 + index % 7):
            times_s.append(round(at_s, 6))
            stall_s = 3.0 if index % 5 == 0 and token == 10 else 0.0
            at_s += self.slowness * (rng.expovariate(20.0) + stall_s)
        failed = index % 11 == 10
        return {
            "request_id": f"r{index}",
            "arrival_s": arrival_s,
            "sent_s": arrival_s + 1e-4,
            "ended_s": times_s[-1] + 0.01,
            "token_times_s": times_s,
            "prompt_tokens": 100 + index,
            "output_tokens": len(times_s),
            "outcome": "failed" if failed else "finished",
            "pace_tok_s": 5.0,
            "scenario": self.scenarios[index % len(self.scenarios)],
            "tenant": "default",
            "slo_class": {"name": "chatbot", "ttft_slowdown": 5.0, "tpot_s": 0.1},
        }

    def _description(self) -> dict[str, Any]:
        return {
            "kind": "readahead-load",
            "format_version": 1,
            "started_at": "2026-01-02T03:04:05+00:00",
            "readahead_version": "0.1.0",
            "commit": "0123456789abcdef",
            "engine": self.engine,
            "zero_load_ttft": {"base_s": 0.05, "per_token_s": 0.0, "origin": "given"},
            "settings": {
                "target": self.target,
                "seed": self.seed,
                "rate_req_s": self.rate_req_s,
                "model": "tiny",
                "workload_summary": "a sample",
            },
            "is_complete": True,
            "is_valid": not self.invalid_because,
            "results": {"invalid_because": list(self.invalid_because)},
        }
