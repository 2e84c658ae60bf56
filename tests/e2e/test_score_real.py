"""One table for our own load, vLLM's benchmark and another tool, on the real cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from up_process import UpProcess

REQUESTS = 12
OUTPUT_TOKENS = 24
RUN_S_MAX = 100.0
AIPERF = Path(__file__).parents[1] / "data" / "score" / "aiperf.jsonl"
VLLM_BENCH = """
import sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args(sys.argv[1:]))
"""
"""`vllm bench serve`, past its console script, which the CPU build cannot start."""


def _run(*command: str, folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
    )
    assert done.returncode in {0, 3}, done.stdout + done.stderr  # 3: load sent late, and says so
    return done.stdout


def _readahead(*arguments: str, folder: Path) -> str:
    return _run(sys.executable, "-m", "readahead.cli.main", *arguments, folder=folder)


def _vllm_bench(cluster: UpProcess, model: Path, folder: Path) -> None:
    _run(
        *(sys.executable, "-c", VLLM_BENCH, "--backend", "openai"),
        *("--base-url", f"http://{cluster.http}", "--endpoint", "/v1/completions"),
        *("--model", "tiny", "--tokenizer", str(model), "--dataset-name", "random"),
        *("--random-input-len", "64", "--random-output-len", f"{OUTPUT_TOKENS}", "--ignore-eos"),
        *("--num-prompts", f"{REQUESTS}", "--request-rate", "4", "--disable-tqdm"),
        *("--save-result", "--save-detailed", "--result-dir", str(folder)),
        *("--result-filename", "vllm.json"),
        folder=folder,
    )


def test_one_table_for_three_tools(cluster: UpProcess, tiny_model: Path, tmp_path: Path) -> None:
    """Each log is told apart by itself; what both runs asked for is what both scores count."""
    _readahead(
        *("load", "--target", f"grpc://{cluster.grpc}", "--rate", "4", "--jsonl", "load.jsonl"),
        *("--requests", f"{REQUESTS}", "--output-tokens", f"{OUTPUT_TOKENS}"),
        folder=tmp_path,
    )
    _vllm_bench(cluster, tiny_model, tmp_path)
    shutil.copy(AIPERF, tmp_path)
    files = ["load.jsonl", "vllm.json", AIPERF.name]
    lines = _readahead("score", "--json", *files, folder=tmp_path).splitlines()
    ours, vllm, other = map(json.loads, lines)
    for run in (ours, vllm):
        assert run["outcomes"]["finished"] == REQUESTS
        assert run["tokens"] == REQUESTS * OUTPUT_TOKENS
    for run in (ours, vllm, other):
        assert 0 < run["smooth_goodput_tok_s"] <= run["throughput_tok_s"]
        assert run["ttft_s"]["p50"] > 0
        assert (run["form"], run["alpha"], run["pace"]) == ("F1", 2.5, 5)
    table = _readahead("score", "--html", "page.html", *files, folder=tmp_path)
    for name in (*files, "smooth goodput F1", "TTFT"):
        assert name in table
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")
