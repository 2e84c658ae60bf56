"""A simulated run for a trace viewer (chrome://tracing, Perfetto): who did what, and when."""

from __future__ import annotations

import json
from typing import IO

from readahead.core.planning.policy import Plan
from readahead.sim.asked import EndedRequest
from readahead.sim.engine import Engine
from readahead.sim.stretch import Stretch

ENGINES_PID, REQUESTS_PID = 1, 2


class ChromeTrace:
    """Keeps one event per stretch and two per request; each takes some hundred bytes.

    Format: JSON object of the Trace Event Format; times are microseconds of virtual time.
    """

    def __init__(self) -> None:
        self._events: list[dict[str, object]] = []
        self._rows: dict[str, int] = {}
        self._requests = 0

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        """A stretch of iterations."""
        work = plan.work
        kind = "mixed" if work.prefill_pairs and work.past_tokens else "prefill"
        self._events.append(
            {
                "name": kind if work.prefill_pairs else f"decode x{stretch.iterations}",
                "ph": "X",
                "pid": ENGINES_PID,
                "tid": self._row(engine.description.worker_id),
                "ts": round(stretch.start_s * 1e6, 3),
                "dur": round((stretch.end_s - stretch.start_s) * 1e6, 3),
                "args": {
                    "iterations": stretch.iterations,
                    "requests": work.requests,
                    "tokens": work.tokens,
                    "past_tokens": work.past_tokens,
                    "kv_blocks_free": engine.batch.blocks_free,
                },
            }
        )

    def ended(self, request: EndedRequest) -> None:
        """A request: its wait for the first token, then its tokens."""
        self._requests += 1
        first_s = request.token_times_s[0] if request.token_times_s else request.ended_s
        parts = (
            ("to the first token", request.arrival_s, first_s),
            (f"{len(request.token_times_s)} tokens", first_s, request.ended_s),
        )
        for name, start_s, end_s in parts:
            self._events.append(
                {
                    "name": name,
                    "ph": "X",
                    "pid": REQUESTS_PID,
                    "tid": self._requests,
                    "ts": round(start_s * 1e6, 3),
                    "dur": round((end_s - start_s) * 1e6, 3),
                    "args": {"request_id": request.request_id, "outcome": request.outcome.value},
                }
            )

    def moved(self, *, source: str, target: str, start_s: float, end_s: float) -> None:
        """A transfer of KV, in the row of the worker that gets it."""
        self._events.append(
            {
                "name": f"KV from {source}",
                "ph": "X",
                "pid": ENGINES_PID,
                "tid": self._row(f"{target} KV"),
                "ts": round(start_s * 1e6, 3),
                "dur": round((end_s - start_s) * 1e6, 3),
                "args": {"source": source},
            }
        )

    def write(self, file: IO[str]) -> None:
        """Writes everything.

        Raises:
            OSError: the disk does not take it.
        """
        names: list[dict[str, object]] = [
            _name("process_name", ENGINES_PID, 0, "engines (simulated)"),
            _name("process_name", REQUESTS_PID, 0, "requests (simulated)"),
            *(_name("thread_name", ENGINES_PID, row, name) for name, row in self._rows.items()),
        ]
        content = {"otherData": {"simulated": True}, "traceEvents": [*names, *self._events]}
        json.dump(content, file, separators=(",", ":"))

    def _row(self, name: str) -> int:
        return self._rows.setdefault(name, len(self._rows) + 1)


def _name(kind: str, pid: int, tid: int, name: str) -> dict[str, object]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
