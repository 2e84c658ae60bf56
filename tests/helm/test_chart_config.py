"""The ConfigMaps hold the processes' own settings, and the processes read them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import (
    MODEL,
    RELEASE,
    VALUE_SETS,
    Manifest,
    containers,
    environment,
    merged,
    named,
    of_kind,
    render,
    rendered,
)

from readahead.core.cluster import Role
from readahead.router.config import RouterConfig
from readahead.runtime.settings import load
from readahead.services.config import WorkerConfig

PODS = {
    "metadata.name": "demo-readahead-decode-7d9f-x2x4b",
    "status.podIP": "10.1.2.3",
    "readahead-redis-url": "redis://:secret@redis:6379/0",
}
Manifests = list[Manifest] | tuple[Manifest, ...]


def _loaded(manifests: Manifests, component: str, config_type: type[Any], folder: Path) -> Any:
    """What the process makes of its file and its environment."""
    (container,) = containers(named(manifests, "Deployment", component))
    (text,) = named(manifests, "ConfigMap", component)["data"].values()
    file = folder / f"{component}.yaml"
    file.write_text(text, encoding="utf-8")
    prefix = "READAHEAD_ROUTER" if component == "router" else "READAHEAD_WORKER"
    environ = environment(container, PODS)
    return load(config_type, file=file, environ=environ, prefix=prefix, overrides=()).config


@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_router_reads_its_config_map(value_set: str, tmp_path: Path) -> None:
    """Each example's router file loads, on all addresses, at the ports of the pod."""
    manifests = rendered(value_set)
    config: RouterConfig = _loaded(manifests, "router", RouterConfig, tmp_path)
    (container,) = containers(named(manifests, "Deployment", "router"))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": config.doors.http_port, "grpc": config.doors.grpc_port}
    assert config.doors.host == "0.0.0.0"
    assert config.model.path.startswith("/models/")
    assert config.model.name


@pytest.mark.parametrize("value_set", VALUE_SETS)
@pytest.mark.parametrize("role", list(Role))
def test_worker_reads_its_config_map(value_set: str, role: Role, tmp_path: Path) -> None:
    """Each example's worker file loads; id and addresses are the pod's."""
    manifests = rendered(value_set)
    config: WorkerConfig = _loaded(manifests, role, WorkerConfig, tmp_path)
    router: RouterConfig = _loaded(manifests, "router", RouterConfig, tmp_path)
    (container,) = containers(named(manifests, "Deployment", role))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert config.role is role
    assert config.worker_id == PODS["metadata.name"]
    assert config.host == "0.0.0.0"
    assert config.advertised_address == f"10.1.2.3:{config.port}"
    assert config.kv.side_channel_host == "10.1.2.3"
    assert ports == {
        "grpc": config.port,
        "kv": config.kv.side_channel_port,
        "metrics": config.telemetry.metrics_port,
    }
    assert (config.engine.model_path, config.engine.model_name) == (
        router.model.path,
        router.model.name,
    )
    assert config.membership.redis_url == router.membership.redis_url
    gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
    assert config.engine.tensor_parallel_size == max(1, gpus)


def test_large_numbers_stay_whole(tmp_path: Path) -> None:
    """A number of bytes is not rounded into an exponent on its way."""
    values = {"decode": {"config": {"engine": {"kv_bytes": 171798691841}}}}
    config: WorkerConfig = _loaded(render(merged(MODEL, values)), "decode", WorkerConfig, tmp_path)
    assert config.engine.kv_bytes == 171798691841


def test_without_redis_routers_dial_the_workers(tmp_path: Path) -> None:
    """The static list names the two headless Services at the workers' port."""
    manifests = rendered("cpu-values.yaml")
    config: RouterConfig = _loaded(manifests, "router", RouterConfig, tmp_path)
    assert config.membership.redis_url == ""
    assert config.membership.workers == (
        f"{RELEASE}-readahead-prefill:50052",
        f"{RELEASE}-readahead-decode:50052",
    )
    for role in Role:
        assert named(manifests, "Service", role)["spec"]["clusterIP"] == "None"


def test_a_secret_url_is_in_no_manifest() -> None:
    """With urlSecret, the address of Redis comes by secretKeyRef and stands nowhere else."""
    manifests = rendered("production-values.yaml")
    for config_map in of_kind(manifests, "ConfigMap"):
        assert "redis_url" not in yaml.safe_dump(config_map)
    for deployment in of_kind(manifests, "Deployment"):
        (container,) = containers(deployment)
        (entry,) = (e for e in container["env"] if e["name"].endswith("__REDIS_URL"))
        assert entry["valueFrom"]["secretKeyRef"] == {"name": "readahead-redis-url", "key": "url"}


def _digest(manifests: Manifests, component: str) -> str:
    pod = named(manifests, "Deployment", component)["spec"]["template"]
    digest: str = pod["metadata"]["annotations"]["readahead/config-sha256"]
    return digest


@pytest.mark.parametrize(
    ("values", "rolled"),
    [
        ({"decode": {"config": {"engine": {"requests_max": 7}}}}, {"decode"}),
        ({"worker": {"config": {"engine": {"requests_max": 7}}}}, {"prefill", "decode"}),
        ({"router": {"config": {"worker_silence_s_max": 9}}}, {"router"}),
        ({"telemetry": {"log_level": "debug"}}, {"router", "prefill", "decode"}),
        ({"decode": {"replicas": 9}}, set()),
    ],
)
def test_a_change_of_settings_rolls_its_pods_alone(
    values: dict[str, Any], rolled: set[str]
) -> None:
    """Pods restart iff their own file changes."""
    before, after = render(MODEL), render(merged(MODEL, values))
    changed = {
        c for c in ("router", "prefill", "decode") if _digest(before, c) != _digest(after, c)
    }
    assert changed == rolled


def test_defaults_of_the_chart_are_those_of_the_code(tmp_path: Path) -> None:
    """Where values.yaml repeats a default so that templates can read it, the two agree."""
    manifests = render(MODEL)
    router: RouterConfig = _loaded(manifests, "router", RouterConfig, tmp_path)
    assert router.drain_s_max == RouterConfig().drain_s_max
    assert router.doors.http_port == RouterConfig().doors.http_port
    assert router.doors.grpc_port == RouterConfig().doors.grpc_port
    worker: WorkerConfig = _loaded(manifests, "decode", WorkerConfig, tmp_path)
    assert worker.drain_s_max == WorkerConfig(role=Role.DECODE).drain_s_max


@pytest.mark.parametrize("component", ["router", "prefill", "decode"])
def test_the_command_is_one_that_the_cli_has(component: str) -> None:
    """Each pod's command is a `readahead` command with the options it names."""
    (container,) = containers(named(rendered("minimal-values.yaml"), "Deployment", component))
    command, *options = container["args"]
    help_text = subprocess.run(
        [*container["command"], command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": _scripts(), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout
    for option in options:
        assert not option.startswith("--") or option in help_text


def _scripts() -> str:
    import sysconfig

    return sysconfig.get_path("scripts")
