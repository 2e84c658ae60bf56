"""vLLM's own OpenAI server, and two tools that load it with the same requests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from readahead.loadgen.load_offer import Target, make_offer
from readahead.loadgen.load_plain import PlainSpec
from readahead.runtime.clock import monotonic_s
from readahead.workload.arrivals import PoissonArrivals
from readahead.workload.lengths import parse_lengths
from readahead.workload.session import Segment

PAUSE = threading.Event()
"""Never set."""
READY_S_MAX = 400.0
BLOCK_S_MAX = 300.0
OURS, THEIRS = "readahead load", "vllm bench serve"
TOOLS = (OURS, THEIRS)
DONE = "block done"
VLLM_BENCH = f"""
import json, sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
for line in sys.stdin:
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args(json.loads(line)))
    print("{DONE}", flush=True)
"""
"""`vllm bench serve`, past its console script, which the CPU build cannot start; one process for
all blocks, as it takes many seconds to import."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What both tools offer."""

    name: str
    prompt_tokens: int
    output_lengths: str
    """As `parse_lengths` reads them."""
    requests: int
    users: int | None = None
    """A closed loop of so many."""
    rate_req_s: float | None = None
    """Even gaps."""

    @property
    def all_prompt_tokens(self) -> int:
        """Of the whole load, as a server counts them."""
        return self.requests * self.prompt_tokens

    @property
    def ours(self) -> list[str]:
        """As flags of `readahead load`."""
        if self.users is not None:
            return ["--closed-loop", str(self.users)]
        return ["--arrivals", f"gamma:rate={self.rate_req_s},cv=0.01"]

    @property
    def theirs(self) -> list[str]:
        """As flags of `vllm bench serve`."""
        if self.users is not None:
            return ["--max-concurrency", str(self.users)]
        return ["--request-rate", str(self.rate_req_s), "--burstiness", "10000"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What one tool says of one block: medians over requests, and the whole's throughput."""

    ttft_s: float
    tpot_s: float
    throughput_tok_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What one block sends."""

    path: Path
    output_tokens: int
    """Of all requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A server, and what the tools need to load it."""

    url: str
    model: Path
    folder: Path
    vllm_bench: subprocess.Popen[str]

    def block(self, tool: str, load: Load, seed: int) -> Numbers:
        """One run of one tool."""
        offered = self._offered(load, seed)
        if tool == THEIRS:
            return self._theirs(load, offered)
        with self._ours_process(load, seed) as process:
            return self._ours(load, offered, process)

    def together(self, load: Load, seed: int) -> dict[str, Numbers]:
        """One run of each at the same time: whatever the machine does, it does to both."""
        offered = self._offered(load, seed)
        records = self.folder / "ours.jsonl"
        records.unlink(missing_ok=True)
        with self._ours_process(load, seed) as process:
            while not records.exists() and process.poll() is None:
                PAUSE.wait(0.01)
            theirs = self._theirs(load, offered)
            return {OURS: self._ours(load, offered, process), THEIRS: theirs}

    def _ours_process(self, load: Load, seed: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "readahead.cli.main", "load", "--target", self.url),
                *("--requests", str(load.requests), "--seed", str(seed), *load.ours),
                *("--prompt-tokens", str(load.prompt_tokens), "--model-path", str(self.model)),
                *("--output-tokens", load.output_lengths, "--jsonl", "ours.jsonl"),
            ],
            cwd=self.folder,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _ours(self, load: Load, offered: Offered, process: subprocess.Popen[str]) -> Numbers:
        records = self.folder / "ours.jsonl"
        output, _ = process.communicate(timeout=BLOCK_S_MAX)
        # 3: some sends were late, which ours says; with even gaps that moves no median.
        assert process.returncode in {0, 3}, output
        meta = json.loads(records.with_name(f"{records.name}.meta.json").read_text())
        results = meta["results"]
        assert results["outcomes"] == {"finished": load.requests}, results
        assert results["output_tokens"] == offered.output_tokens
        lines = records.read_text().splitlines()
        assert sum(json.loads(line)["prompt_tokens"] for line in lines) == load.all_prompt_tokens
        return Numbers(
            ttft_s=results["ttft_from_send_s"]["p50"],
            tpot_s=results["tpot_s"]["p50"],
            throughput_tok_s=results["tokens_per_s"],
        )

    def _theirs(self, load: Load, offered: Offered) -> Numbers:
        self._ask_vllm(
            *("--backend", "openai", "--base-url", self.url),
            *("--endpoint", "/v1/completions", "--model", "tiny", "--tokenizer", str(self.model)),
            *("--dataset-name", "sharegpt", "--dataset-path", str(offered.path)),
            "--disable-shuffle",
            *("--ignore-eos", "--num-prompts", str(load.requests), "--disable-tqdm"),
            *(*load.theirs, "--save-result", "--result-dir", str(self.folder)),
            *("--result-filename", "theirs.json"),
        )
        results = json.loads((self.folder / "theirs.json").read_text())
        assert results["completed"] == load.requests, results
        assert results["total_output_tokens"] == offered.output_tokens
        assert results["total_input_tokens"] == load.all_prompt_tokens, results
        return Numbers(
            ttft_s=results["median_ttft_ms"] / 1e3,
            tpot_s=results["median_tpot_ms"] / 1e3,
            throughput_tok_s=results["output_throughput"],
        )

    def _offered(self, load: Load, seed: int) -> Offered:
        """What `readahead load` sends for this seed, as a file that vLLM's tool reads: the very
        texts, each with an answer as long as the one to be asked for."""
        spec = PlainSpec(
            seed=seed,
            arrivals=PoissonArrivals(rate_req_s=1.0),
            requests=load.requests,
            duration_s=None,
            prompt_lengths=parse_lengths(str(load.prompt_tokens)),
            output_lengths=parse_lengths(load.output_lengths),
        )
        offer = make_offer(spec, Target(takes_ids=False, model_path=self.model), pace_tok_s=None)
        turns = [one.turns[0] for one in offer.sessions]
        answers = [Segment(f"answer {i}", turn.output_tokens) for i, turn in enumerate(turns)]
        texts = [
            (offer.texts(turn.segments[0]), offer.texts(answer))
            for turn, answer in zip(turns, answers, strict=True)
        ]
        path = self.folder / "prompts.json"
        path.write_text(
            json.dumps([{"conversations": [{"value": one} for one in pair]} for pair in texts])
        )
        return Offered(path=path, output_tokens=sum(turn.output_tokens for turn in turns))

    def _ask_vllm(self, *arguments: str) -> None:
        """One run of vLLM's tool; its log is in the folder."""
        stdin, stdout = self.vllm_bench.stdin, self.vllm_bench.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(arguments) + "\n")
        stdin.flush()
        for line in stdout:
            if line.strip() == DONE:
                return
        raise RuntimeError((self.folder / "bench.log").read_text(errors="replace"))


@contextmanager
def vllm_bench(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """vLLM's tool, waiting for arguments."""
    with (folder / "bench.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", VLLM_BENCH],
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def vllm_server(model: Path, folder: Path) -> Iterator[str]:
    """The base address of vLLM's own OpenAI server, ready; it is gone at the exit."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
                *("--model", str(model), "--served-model-name", "tiny", "--dtype", "float32"),
                *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048"),
                *("--enforce-eager", "--kv-cache-memory-bytes", str(256 << 20)),
                # The tools repeat prompts: none may be cheaper the second time.
                *("--no-enable-prefix-caching", "--disable-uvicorn-access-log"),
            ],
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_ready(server, f"{url}/health", log)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = monotonic_s() + READY_S_MAX
    while monotonic_s() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            PAUSE.wait(0.2)
    raise TimeoutError(f"the server is not ready: {log.read_text(errors='replace')}")
