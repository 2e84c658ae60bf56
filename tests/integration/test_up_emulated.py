"""`readahead up` with the emulated engine: the real processes, without a model."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from up_process import UpProcess, up_process
from waiting import wait_until

GONE_S_MAX = 10.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[UpProcess]:
    """A ready cluster; nothing of it lives afterwards."""
    with up_process(tmp_path, "--engine", "emulated", "--drain-s-max", "1") as up:
        yield up.wait_ready()
        up.kill_all()
        wait_until(lambda: not up.left(), GONE_S_MAX, what="every process is gone")


def test_it_serves_and_ctrl_c_leaves_nothing(cluster: UpProcess) -> None:
    """Doors answer where it says; after SIGINT no process, no folder and exit code 0."""
    for part in (cluster.http, cluster.grpc, "curl -N", f'"model": "{cluster.model}"', "EMULATED"):
        assert part in cluster.output
    assert cluster.get("/health")[0] == 200
    assert cluster.complete("The river begins")
    grpc_host, _, grpc_port = cluster.grpc.partition(":")
    socket.create_connection((grpc_host, int(grpc_port)), timeout=5).close()
    for worker in cluster.workers:
        host, _, port = worker.metrics.partition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
    started = cluster.processes()
    assert len(started) == 5  # redis, router, three workers
    cluster.signal(signal.SIGINT)
    assert cluster.wait() == 0, cluster.output
    assert cluster.left() == []
    assert list((cluster.cache / "run").iterdir()) == []


@pytest.mark.parametrize("name", ["router", "redis", "decode-1"])
def test_a_child_that_dies_is_named_and_everything_stops(cluster: UpProcess, name: str) -> None:
    """With the signal, its last lines, the logs' folder and exit code 1."""
    cluster.child(name).send_signal(signal.SIGKILL)
    assert cluster.wait() == 1, cluster.output
    assert f"error: {name} was killed by SIGKILL" in cluster.output
    assert f"{name}.log" in cluster.output
    assert f"logs: {cluster.run_folder}" in cluster.output
    assert cluster.left() == []


def test_nothing_survives_the_supervisors_own_death(cluster: UpProcess) -> None:
    """Killed as by the out-of-memory killer, it can stop nothing; the kernel does."""
    cluster.signal(signal.SIGKILL)
    assert cluster.wait() == -signal.SIGKILL
    wait_until(lambda: not cluster.left(), GONE_S_MAX, what="every process is gone")


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """A long drain is cut short by asking again."""
    with up_process(tmp_path, "--engine", "emulated", "--drain-s-max", "600") as up:
        up.wait_ready()
        up.child("router").send_signal(signal.SIGSTOP)  # It will not hear SIGTERM.
        up.signal(signal.SIGINT)
        wait_until(lambda: "stopping the router" in up.output, 10)
        up.signal(signal.SIGINT)
        up.wait()
        assert up.left() == []


def test_a_stop_while_starting_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C is heard before the cluster is ready."""
    with up_process(tmp_path, "--engine", "emulated") as up:
        wait_until(lambda: "starting router" in up.output, 30)
        up.signal(signal.SIGINT)
        assert up.wait() == 0, up.output
        assert up.left() == []


def test_bad_settings_from_the_environment_are_named(tmp_path: Path) -> None:
    """Exit code 2 and one line, before anything starts."""
    environ = {"READAHEAD_ROUTER__DRAIN_S_MAX": "-1"}
    with up_process(tmp_path, "--engine", "emulated", environ=environ) as up:
        assert up.wait() == 2
        assert "error: drain_s_max (environment READAHEAD_ROUTER__DRAIN_S_MAX)" in up.output
        assert "starting" not in up.output
