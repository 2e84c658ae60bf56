"""`readahead up` on real engines: starts, serves, and leaves nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from up_process import UpProcess, http_call, up_process
from waiting import wait_until

from readahead.services.kv.affinity import for_engines

PROMPT = (
    "The river begins in the mountains as a thin stream of cold water. In spring the snow melts, "
    "the stream becomes loud, and it carries stones and branches down to the valley."
)


def _kv_transfers(cluster: UpProcess) -> float:
    """Counted by the decode workers' engines since their start."""
    pages = [http_call(worker.metrics, "GET", "/metrics")[1] for worker in cluster.workers]
    return sum(
        float(line.split()[1])
        for page in pages
        for line in page.splitlines()
        if line.startswith("readahead_worker_kv_transfers ")
    )


def test_it_serves_text_through_both_pools(cluster: UpProcess) -> None:
    """Greedy text is the same each time, and each time KV was pulled over NIXL for it."""
    before = _kv_transfers(cluster)
    first = cluster.complete(PROMPT, max_tokens=12)
    assert len(first.split()) > 3
    assert cluster.complete(PROMPT, max_tokens=12) == first
    wait_until(lambda: _kv_transfers(cluster) == before + 2, 10, what="two KV transfers counted")
    assert "vllm, 1 prefill + 2 decode" in cluster.output
    assert "EMULATED" not in cluster.output


def test_every_worker_answers_health_and_metrics(cluster: UpProcess) -> None:
    """On the port that the summary names."""
    for worker in cluster.workers:
        assert http_call(worker.metrics, "GET", "/health")[0] == 200
        status, text = http_call(worker.metrics, "GET", "/metrics")
        assert status == 200
        assert "readahead_" in text


def test_engines_may_use_all_processors_but_one(cluster: UpProcess) -> None:
    """vLLM's NIXL connector would bind all engines of a machine to its last one."""
    processes = psutil.Process(cluster.pid).children(recursive=True)
    engines = [one for one in processes if "EngineCore" in " ".join(one.cmdline())]
    assert len(engines) == 3
    for engine in engines:
        assert set(engine.cpu_affinity() or ()) == for_engines(
            os.sched_getaffinity(0), takes_all=False
        )


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_a_worker_whose_engine_dies_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    """The worker whose engine core is killed is named; the others and their engines end too."""
    with up_process(tmp_path, "--decode", "1") as up:
        up.wait_ready()
        worker = up.child("decode-0")
        engines = worker.children(recursive=True)
        assert engines, "the engine core is a process of its own"
        engines[0].send_signal(signal.SIGKILL)
        assert up.wait() == 1, up.output
        assert "error: decode-0 " in up.output
        assert "ENGINE_FAILED" in up.output
        assert up.left() == []


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_nothing_survives_the_supervisors_own_death_with_engines(tmp_path: Path) -> None:
    """Zygote, workers and engine cores all hang on it through the kernel."""
    with up_process(tmp_path, "--decode", "1") as up:
        up.wait_ready()
        names = {process.name() for process in up.processes()}
        assert len(up.processes()) == 7, names  # redis, router, zygote, 2 workers, 2 engines
        up.signal(signal.SIGKILL)
        up.wait()
        wait_until(lambda: not up.left(), 10, what="every process is gone")
