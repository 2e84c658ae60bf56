"""One plain vLLM engine, alone: no KV connector, no prefix cache, one prompt at a time.

    python reference_engine.py QUESTION.json ANSWER.json

The question has `model`, `max_tokens` and `prompts`, lists of token ids; the answer is a list of
lists of token ids. Nothing of Readahead is imported, so that it cannot share an error with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIMIT_S = 150.0
"""Importing vLLM takes some ten seconds on a busy machine, a prompt a tenth of one."""


def reference_answers(
    model: Path, prompts: Sequence[Sequence[int]], *, max_tokens: int, folder: Path
) -> list[list[int]]:
    """Greedy float32 output of a process of its own for each prompt."""
    question, answer = folder / "question.json", folder / "answer.json"
    content = {"model": str(model), "max_tokens": max_tokens, "prompts": prompts}
    question.write_text(json.dumps(content))
    inherited = {name: value for name, value in os.environ.items() if "VLLM_" not in name}
    done = subprocess.run(
        [sys.executable, __file__, question, answer],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={
            **inherited,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers: list[list[int]] = json.loads(answer.read_text())
    return answers


def main(question: str, answer: str) -> None:
    """Reads the question, writes the answer."""
    from vllm import LLM, SamplingParams

    asked = json.loads(Path(question).read_text())
    llm = LLM(
        model=asked["model"],
        dtype="float32",
        enforce_eager=True,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=64 << 20,
        max_num_seqs=1,
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=asked["max_tokens"], ignore_eos=True)
    answers = []
    for prompt in asked["prompts"]:
        [output] = llm.generate({"prompt_token_ids": prompt}, sampling, use_tqdm=False)
        answers.append(list(output.outputs[0].token_ids))
    Path(answer).write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
