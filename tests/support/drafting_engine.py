"""Real engines in one process of their own: a plain one, then one that speculates.

    python drafting_engine.py QUESTION.json ANSWER.json

The question has `model`, `draft` (a folder, or empty for n-grams), `is_async`, `prompts` and
`max_tokens`; the answer has what each way of cutting drafts brought.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIMIT_S = 240.0
DRAFT_TOKENS_MAX = 5
ADAPTIVE: dict[str, Any] = {"readahead_drafts": {"is_adaptive": True}}
"""Additional settings of an engine whose drafts are cut."""


def drafted_answers(question: dict[str, Any], *, folder: Path) -> dict[str, Any]:
    """Greedy float32 output of a process of its own for each way."""
    asked, answer = folder / "question.json", folder / "answer.json"
    asked.write_text(json.dumps(question))
    inherited = {name: value for name, value in os.environ.items() if "VLLM_" not in name}
    done = subprocess.run(
        [sys.executable, __file__, asked, answer],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**inherited, "OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


class WildPlanner:
    """Cuts at random."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def lengths(self, decoding: Sequence[object], iteration: object) -> list[int]:
        """Nothing, all, or something between."""
        del iteration
        return [self._rng.randint(0, DRAFT_TOKENS_MAX) for _ in decoding]

    def observe(self, key: str, *, drafted: int, accepted: int) -> None:
        """Learns nothing."""
        assert 0 <= accepted <= drafted, (key, drafted, accepted)

    def forget(self, key: str) -> None:
        """Knew nothing."""


def drafting_arguments(draft: str) -> dict[str, Any]:
    """Of an engine that drafts by a model of this folder; empty: by n-grams."""
    from readahead.services.config import SpeculationConfig
    from readahead.services.engine.vllm_setup import preload_model, speculative_config

    if draft:
        preload_model(draft)
    speculation = SpeculationConfig(
        method="draft_model" if draft else "ngram",
        model_path=draft,
        draft_tokens_max=DRAFT_TOKENS_MAX,
    )
    return {
        "speculative_config": speculative_config(speculation),
        "scheduler_cls": "readahead.services.engine.vllm_drafts.DraftingScheduler",
    }


def _engine(question: dict[str, Any], *, is_drafting: bool) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from readahead.services.engine.vllm_setup import preload_model

    arguments: dict[str, Any] = {}
    if is_drafting:
        arguments = drafting_arguments(question["draft"])
        arguments["additional_config"] = ADAPTIVE
    preload_model(question["model"])
    config = EngineArgs(
        model=question["model"],
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=24 << 20,
        distributed_executor_backend="uni",
        max_num_seqs=32,
        **arguments,
    ).create_engine_config()
    return LLMEngine.from_vllm_config(config)


def force_async() -> None:
    """vLLM turns asynchronous scheduling off on a CPU, for each settings that it makes: the
    drafting model has its own, which share the scheduler's."""
    from vllm.platforms.cpu import CpuPlatform

    settle = CpuPlatform.check_and_update_config

    def settle_async(cls: type, vllm_config: Any) -> None:
        del cls
        settle(vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    CpuPlatform.check_and_update_config = classmethod(settle_async)


def _answers(llm: Any, question: dict[str, Any], *, at_once: int, seed: int) -> list[list[int]]:
    """All prompts, so many at a time, each sent at a random moment."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    rng = random.Random(seed)
    params = SamplingParams(
        temperature=0.0,
        max_tokens=question["max_tokens"],
        ignore_eos=True,
        output_kind=RequestOutputKind.DELTA,
    )
    pending = list(enumerate(question["prompts"]))
    answers: list[list[int]] = [[] for _ in pending]
    running = 0
    while pending or running:
        while pending and running < at_once and rng.random() < 0.6:
            index, prompt = pending.pop(0)
            llm.add_request(f"{index}-{seed}", {"prompt_token_ids": prompt}, params)
            running += 1
        for output in llm.step():
            answers[int(output.request_id.split("-")[0])] += output.outputs[0].token_ids
            running -= output.finished
    return answers


def main(asked: str, answer: str) -> None:
    """Reads the question, writes the answer."""
    from readahead.services.engine.vllm_environment import prepare_environment

    prepare_environment()
    from scheduler_scenarios import Wild

    question = json.loads(Path(asked).read_text())
    if question["is_async"]:
        force_async()
    plain = _engine(question, is_drafting=False)
    found: dict[str, Any] = {"plain": _answers(plain, question, at_once=1, seed=0)}
    plain.engine_core.shutdown()
    llm = _engine(question, is_drafting=True)
    core = llm.engine_core.engine_core
    scheduler = core.scheduler
    found["async"] = scheduler.scheduler_config.async_scheduling
    adaptive = scheduler.draft_planner
    ways = (("whole", None), ("adaptive", adaptive), ("wild", WildPlanner(1)))
    for name, planner in ways:
        scheduler.draft_planner = planner
        if name == "wild":
            scheduler.select("sarathi", {})
            scheduler._policy = Wild(random.Random(5))
        before = core.readahead_drafts()
        answers = _answers(llm, question, at_once=16, seed=3)
        after = core.readahead_drafts()
        counts = {key: after[key] - before[key] for key in after}
        found[name] = {"answers": answers, "counts": counts}
        llm.reset_prefix_cache()
    found["known"] = len(adaptive)
    Path(answer).write_text(json.dumps(found))
    os._exit(0)  # vLLM's own way out takes seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
