"""Measures an engine's iterations: what each computed, and how long it took."""

from __future__ import annotations

import json
from collections import deque
from typing import IO, Any

from readahead.core.latency.iteration import IterationWork

LOG_KEY = "readahead_iteration_log"
"""In vLLM's additional_config: path of the log. docs/reference/iteration-log.md has its lines."""
UNFINISHED_MAX = 8
"""Iterations that asynchronous scheduling may have under way; it has two."""


class IterationLog:
    """Appends a line per iteration."""

    def __init__(self, path: str) -> None:
        # Line by line: an engine core is killed, not closed, when its worker goes.
        self._file: IO[str] = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115, PTH123
        self._open: deque[tuple[float, IterationWork]] = deque(maxlen=UNFINISHED_MAX)

    def began(self, work: IterationWork, *, at_s: float) -> None:
        """An iteration was scheduled."""
        self._open.append((at_s, work))

    def ended(self, *, at_s: float) -> None:
        """The oldest one that is under way is over."""
        if not self._open:
            return
        began_s, work = self._open.popleft()
        line = {
            "began_s": round(began_s, 6),
            "seconds": round(at_s - began_s, 6),
            "tokens": work.tokens,
            "requests": work.requests,
            "past_tokens": work.past_tokens,
            "prefill_pairs": work.prefill_pairs,
            "draft_steps": work.draft_steps,
        }
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")


def work_of(scheduler: Any, output: Any) -> IterationWork:
    """What a scheduled iteration computes; right after `schedule`, which has already counted the
    scheduled tokens as computed."""
    past_tokens = prefill_pairs = 0
    drafts = output.scheduled_spec_decode_tokens
    for request_id, new in output.num_scheduled_tokens.items():
        request = scheduler.requests[request_id]
        past = max(0, request.num_computed_tokens - new)
        if past >= request.num_prompt_tokens or new == 1:
            past_tokens += past
        else:
            prefill_pairs += new * past + new * (new + 1) // 2
    return IterationWork(
        tokens=output.total_num_scheduled_tokens,
        requests=len(output.num_scheduled_tokens),
        past_tokens=past_tokens,
        prefill_pairs=prefill_pairs,
        draft_steps=max(map(len, drafts.values()), default=0),
    )
