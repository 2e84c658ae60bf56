"""Settings and addresses of every process of a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from readahead.cli.up.options import UpOptions
from readahead.cli.up.plan import CLUSTER_FILE, Plan, make_plan, process_environment
from readahead.core.cluster import Role
from readahead.router.config import ModelConfig
from readahead.runtime.settings import SettingsError

MODEL = ModelConfig(path="/models/m", name="m")


def _plan(
    folder: Path, options: UpOptions, *, gpus: int = 0, environ: Mapping[str, str] | None = None
) -> Plan:
    return make_plan(options, model=MODEL, folder=folder, gpus=gpus, environ=environ or {})


def test_roles_names_and_ports(tmp_path: Path) -> None:
    """As many as asked for, each with its own name and ports."""
    plan = _plan(tmp_path, UpOptions(prefill=2, decode=3))
    names = [worker.name for worker in plan.workers]
    assert names == ["prefill-0", "prefill-1", "decode-0", "decode-1", "decode-2"]
    assert [worker.config.role for worker in plan.workers] == [Role.PREFILL] * 2 + [Role.DECODE] * 3
    ports = [worker.config.port for worker in plan.workers]
    ports += [worker.metrics_port for worker in plan.workers]
    assert len({*ports, plan.redis_port}) == len(ports) + 1


def test_everyone_meets_at_the_same_redis(tmp_path: Path) -> None:
    """Our own unless one is named; then none is started."""
    own = _plan(tmp_path, UpOptions())
    url = f"redis://127.0.0.1:{own.redis_port}/0"
    assert own.router.membership.redis_url == url
    assert {worker.config.membership.redis_url for worker in own.workers} == {url}
    other = _plan(tmp_path, UpOptions(redis="redis://cache:6379/1"))
    assert other.redis_port is None
    assert other.router.membership.redis_url == "redis://cache:6379/1"


def test_environment_is_over_the_plan_for_forked_workers_too(tmp_path: Path) -> None:
    """What a variable says is in the settings that the zygote gets."""
    environ = {
        "READAHEAD_WORKER__KV__LEASE_S": "7",
        "READAHEAD_ROUTER__CORE__READING__PACE_TOK_S": "3",
    }
    plan = _plan(tmp_path, UpOptions(), environ=environ)
    assert {worker.config.kv.lease_s for worker in plan.workers} == {7}
    assert plan.router.core.reading.pace_tok_s == 3.0


@pytest.mark.parametrize(
    ("changes", "gpus", "profile"),
    [
        ({"policy": "readahead"}, 0, "tiny-cpu"),
        ({"policy": "vllm"}, 0, ""),
        ({"policy": "readahead", "engine": "emulated"}, 0, ""),
        ({"policy": "readahead"}, 1, ""),
    ],
)
def test_a_policy_plans_by_the_times_that_are_known(
    changes: dict[str, str], gpus: int, profile: str, tmp_path: Path
) -> None:
    """Those of the tiny model on a processor."""
    plan = _plan(tmp_path, UpOptions(**changes), gpus=gpus)  # type: ignore[arg-type]
    engines = [worker.config.engine for worker in plan.workers]
    assert {one.policy for one in engines} == {changes["policy"]}
    assert {one.latency_profile for one in engines} == {profile}


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    """Before any process starts."""
    with pytest.raises(SettingsError, match="READAHEAD_WORKER__KV__LEASE_S"):
        _plan(tmp_path, UpOptions(), environ={"READAHEAD_WORKER__KV__LEASE_S": "soon"})


def test_summary_is_written_for_programs(tmp_path: Path) -> None:
    """The addresses that were announced."""
    plan = _plan(tmp_path, UpOptions(http_port=8123, grpc_port=8124, engine="emulated"))
    summary = json.loads((tmp_path / CLUSTER_FILE).read_text())
    assert summary["http"] == "127.0.0.1:8123"
    assert summary["grpc"] == "127.0.0.1:8124"
    assert summary["engine"] == "emulated"
    assert [worker["grpc"] for worker in summary["workers"]] == [
        worker.grpc_address for worker in plan.workers
    ]


def test_workers_share_gpus_and_their_memory(tmp_path: Path) -> None:
    """Dealt out in turn; two on one GPU get half each."""
    plan = _plan(tmp_path, UpOptions(prefill=1, decode=2), gpus=2)
    assert [worker.gpu for worker in plan.workers] == [0, 1, 0]
    assert {worker.config.engine.gpu_memory_share for worker in plan.workers} == {0.45}


def test_process_environment_yields_to_the_users() -> None:
    """Defaults are defaults."""
    assert process_environment({"OMP_NUM_THREADS": "4"})["OMP_NUM_THREADS"] == "4"
    assert process_environment({})["OMP_NUM_THREADS"] == "1"
