"""Offers workloads to a real cluster of the tiny model on this machine, and keeps what came out.

Run: python experiments/sim-vs-real/run_real.py OUT CONFIGURATION WORKLOAD...
where CONFIGURATION is a name of CONFIGURATIONS, and a WORKLOAD a name in workloads/, such as chat.
Writes OUT/CONFIGURATION/<workload>.jsonl (requests), <worker>.iterations.jsonl, and runs.jsonl:
when each run began and ended on the clock of the iteration logs, and who used the processors.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from readahead.runtime.clock import monotonic_s

HERE = Path(__file__).parent
WORKLOADS: tuple[Path, ...] = (HERE / "workloads",)
"""Folders of workload files, searched in this order."""
READY_S_MAX = 180.0
RUN_S_MAX = 300.0
READY_LINE = "Ctrl-C stops everything."
CALM_PROCESSORS = 1.0
"""A run begins when no more processors than these are in use, the idle cluster's included."""
CALM_S_MAX = 30.0
"""Longest wait for that; then it begins all the same."""
WHOLE_PROMPTS_BELOW = 1_000_000
"""Tokens: more than any prompt has."""
REMOTE_FROM = 32
"""Tokens; the default."""
OTHERS_MAX = 1.0
"""Processors that others may use on average; after more, a run is done again."""
TRIES_MORE = 2
"""Runs that may be done again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A cluster. Settings are those of every worker's engine."""

    prefill: int = 1
    decode: int = 1
    requests_max: int = 128
    batch_tokens_max: int = 2048
    policy: str = "vllm"
    knobs: Mapping[str, float] = field(default_factory=dict)
    """Of the policy."""
    is_colocated: bool = False
    """Whether the decode workers compute all prompts themselves."""

    @property
    def variables(self) -> dict[str, str]:
        """For the environment of `readahead up`."""
        least = WHOLE_PROMPTS_BELOW if self.is_colocated else REMOTE_FROM
        return {
            "READAHEAD_ALL_PROCESSORS": "1",
            "READAHEAD_WORKER__ENGINE__REQUESTS_MAX": str(self.requests_max),
            "READAHEAD_WORKER__ENGINE__BATCH_TOKENS_MAX": str(self.batch_tokens_max),
            "READAHEAD_WORKER__ENGINE__POLICY": self.policy,
            "READAHEAD_WORKER__ENGINE__POLICY_KNOBS": json.dumps(dict(self.knobs)),
            "READAHEAD_ROUTER__CORE__PLACEMENT__REMOTE_PREFILL_TOKENS_MIN": str(least),
        }


CONFIGURATIONS = {
    "1p1d": Configuration(),
    "1p2d": Configuration(decode=2),
    "chunk-128": Configuration(batch_tokens_max=128),
    "requests-2": Configuration(requests_max=2),
    "vllm": Configuration(is_colocated=True),
    "sarathi": Configuration(is_colocated=True, policy="sarathi", knobs={"chunk_tokens": 256}),
    "readahead": Configuration(is_colocated=True, policy="readahead"),
}


class Cluster:
    """A running `readahead up`."""

    def __init__(self, configuration: Configuration, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.cache = folder / "cache"
        self.output = folder / "up.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "readahead.cli.main", "up"),
                    *("--prefill", str(configuration.prefill)),
                    *("--decode", str(configuration.decode)),
                    *("--http-port", "0", "--grpc-port", "0", "--iteration-logs", str(folder)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"READAHEAD_CACHE": str(self.cache)} | configuration.variables,
            )

    def wait_ready(self) -> str:
        """host:port of its gRPC door."""
        end_s = monotonic_s() + READY_S_MAX
        while READY_LINE not in self.output.read_text(errors="replace"):
            if self.process.poll() is not None or monotonic_s() > end_s:
                raise RuntimeError(f"no cluster:\n{self.output.read_text(errors='replace')}")
            time.sleep(0.5)
        [run] = (self.cache / "run").iterdir()
        return str(json.loads((run / "cluster.json").read_text())["grpc"])

    def stop(self) -> None:
        """As by Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)


def ticks() -> dict[int, tuple[int, int]]:
    """Processor time of every process so far, and its parent."""
    found: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[int(entry.name)] = (int(fields[11]) + int(fields[12]), int(fields[1]))
    return found


def our_s() -> float:
    """Processor seconds so far of this program and of all that descends from it."""
    now = ticks()
    ours = {os.getpid()}
    while more := {pid for pid, (_, parent) in now.items() if parent in ours} - ours:
        ours |= more
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = sum(now[pid][0] for pid in ours) / os.sysconf("SC_CLK_TCK")
    return used + ended.ru_utime + ended.ru_stime


class Meter:
    """Who used the processors since it was made."""

    def __init__(self) -> None:
        self._began_s = monotonic_s()
        self._ours_s, self._all_s = our_s(), whole_machine_s()

    def processors(self) -> tuple[float, float]:
        """In use by us, and by everybody else."""
        seconds = monotonic_s() - self._began_s
        ours = (our_s() - self._ours_s) / seconds
        return ours, (whole_machine_s() - self._all_s) / seconds - ours


def workload_file(name: str) -> Path:
    """The workload of that name."""
    found = [path for folder in WORKLOADS if (path := folder / f"{name}.toml").is_file()]
    if not found:
        raise ValueError(f"no workload {name}")
    return found[0]


def offer(grpc: str, name: str, folder: Path, model: Path) -> dict[str, object]:
    """One run of `readahead load`: when it ran, how it ended, and who used the processors.

    It counts as disturbed when others used more than OTHERS_MAX.
    """
    records = folder / f"{name}.jsonl"
    meter, began_s = Meter(), monotonic_s()
    with (folder / f"{name}.txt").open("w") as printed:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "readahead.cli.main", "load", "--target", f"grpc://{grpc}"),
                *("--workload", str(workload_file(name.partition("@")[0]))),
                *("--model-path", str(model), "--jsonl", str(records)),
                *("--zero-load-ttft", "0.02+0.0001*tokens"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        process.wait(timeout=RUN_S_MAX)
    ours, others = meter.processors()
    return {
        "workload": name,
        "began_s": began_s,
        "ended_s": monotonic_s(),
        "exit": process.returncode,
        "is_disturbed": others > OTHERS_MAX,
        "processors_ours": round(ours, 3),
        "processors_others": round(others, 3),
    }


def wait_calm() -> None:
    """Others use this machine too: returns when they do little, or after CALM_S_MAX."""
    end_s = monotonic_s() + CALM_S_MAX
    while monotonic_s() < end_s:
        before_s = whole_machine_s()
        time.sleep(3.0)
        if (whole_machine_s() - before_s) / 3.0 <= CALM_PROCESSORS:
            return


def whole_machine_s() -> float:
    """Processor seconds in use on the whole machine so far, idle and waiting left out."""
    fields = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def main(out: Path, configuration: str, workloads: list[str]) -> None:
    """Starts the cluster, runs one workload after the other, stops it. A disturbed run is done
    again, at the end of the line."""
    folder = out / configuration
    cluster = Cluster(CONFIGURATIONS[configuration.partition("@")[0]], folder)
    try:
        grpc = cluster.wait_ready()
        [model] = (cluster.cache / "models").iterdir()
        line, tries = list(workloads), len(workloads) + TRIES_MORE
        while line and tries:
            tries -= 1
            name = line.pop(0)
            wait_calm()
            told = offer(grpc, name, folder, model)
            if told["is_disturbed"]:
                line.append(name)
            with (folder / "runs.jsonl").open("a") as file:
                file.write(json.dumps(told) + "\n")
            sys.stdout.write(f"{configuration} {told}\n")
            sys.stdout.flush()
    finally:
        cluster.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
