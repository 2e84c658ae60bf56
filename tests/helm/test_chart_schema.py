"""The chart refuses what it does not understand, and its schema follows the settings."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest
import repo_tools
from helm_chart import CHART, MODEL, VALUE_SETS, merged, render, values_of


@pytest.mark.parametrize("tool", ["helm_schema", "helm_readme"])
def test_generated_files_are_current(tool: str) -> None:
    """Schema and README equal what the settings and the values generate."""
    assert repo_tools.is_current(tool), f"run: python tools/{tool}.py"


@pytest.mark.parametrize("value_set", VALUE_SETS)
def test_lint_finds_nothing(value_set: str) -> None:
    """Each example lints clean, warnings included."""
    report = helm_python.lint(CHART, values_of(value_set), strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


def test_lint_finds_nothing_with_defaults() -> None:
    """The bare values lint clean."""
    assert helm_python.lint(CHART, strict=True)["errors"] == []


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unknown key", {"routers": {}}, "routers"),
    ("unknown nested key", {"router": {"replica": 1}}, "replica"),
    ("unknown setting", {"router": {"config": {"doors": {"prot": 1}}}}, "prot"),
    ("unknown worker setting", {"worker": {"config": {"kv_bytes": 1}}}, "kv_bytes"),
    ("a setting of the other process", {"decode": {"config": {"doors": {}}}}, "doors"),
    ("the chart's own setting", {"prefill": {"config": {"role": "decode"}}}, "role"),
    ("negative replicas", {"prefill": {"replicas": -1}}, "/prefill/replicas"),
    ("replicas as text", {"decode": {"replicas": "2"}}, "/decode/replicas"),
    ("half a GPU", {"decode": {"gpu": {"count": 0.5}}}, "/decode/gpu/count"),
    ("a port too far", {"router": {"service": {"httpPort": 70000}}}, "httpPort"),
    ("a setting of the wrong type", {"worker": {"config": {"port": "x"}}}, "/worker/config/port"),
    ("a policy that is none", {"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ("two model volumes", {"model": {"volume": {"hostPath": {}, "nfs": {}}}}, "/model/volume"),
    ("an unknown model volume", {"model": {"volume": {"s3": {}}}}, "s3"),
    ("a number in env", {"router": {"extraEnv": [{"name": "A", "value": 1}]}}, "extraEnv"),
    ("not a Redis URL", {"redis": {"url": "localhost:6379"}}, "/redis/url"),
    ("a size without sense", {"decode": {"sharedMemorySize": "much"}}, "sharedMemorySize"),
]


@pytest.mark.parametrize(("values", "named"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_schema_refuses(values: dict[str, Any], named: str) -> None:
    """Values that mean nothing are refused, and the message says where."""
    base = {} if "volume" in values.get("model", {}) else MODEL
    with pytest.raises(helm_python.HelmError, match=named):
        render(merged(base, values))


DISAGREEING: list[tuple[str, dict[str, Any], str]] = [
    ("no model", {"model": {"volume": {}}}, "model.volume"),
    (
        "router drains longer than its grace",
        {"router": {"config": {"drain_s_max": 60}}},
        "router.terminationGracePeriodSeconds",
    ),
    (
        "grace without the wait before it",
        {"router": {"config": {"drain_s_max": 54.5}, "terminationGracePeriodSeconds": 59}},
        "router.terminationGracePeriodSeconds",
    ),
    (
        "grace equal to the drain",
        {"decode": {"terminationGracePeriodSeconds": 30}},
        "decode.terminationGracePeriodSeconds",
    ),
    (
        "a role's own drain",
        {"prefill": {"config": {"drain_s_max": 600}}},
        "prefill.terminationGracePeriodSeconds",
    ),
    (
        "a port of chance",
        {"worker": {"config": {"port": 0}}},
        "prefill.config.port|decode.config.p",
    ),
    ("no HTTP door", {"router": {"config": {"doors": {"http_port": -1}}}}, "doors.http_port"),
    ("two Redis", {"redis": {"url": "redis://elsewhere"}}, "redis: give only one"),
    ("many workers without Redis", {"redis": {"enabled": False}}, "decode.replicas"),
    (
        "more shards than GPUs",
        {"decode": {"config": {"engine": {"tensor_parallel_size": 8}}}},
        "tensor_parallel_size",
    ),
    (
        "TLS that routers do not trust",
        {"worker": {"config": {"tls": {"certificate_file": "/c", "key_file": "/k"}}}},
        "go together",
    ),
    (
        "autoscaling upside down",
        {"router": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}},
        "minReplicas",
    ),
]


@pytest.mark.parametrize(
    ("values", "named"), [d[1:] for d in DISAGREEING], ids=[d[0] for d in DISAGREEING]
)
def test_rendering_fails_where_values_disagree(values: dict[str, Any], named: str) -> None:
    """Values that contradict each other stop the rendering, and the message says which."""
    base = {} if "model" in values else MODEL
    with pytest.raises(helm_python.HelmError, match=named):
        render(merged(base, values))


def test_the_least_grace_that_is_enough_renders() -> None:
    """The assertion is exact: one second above drain and preStop passes."""
    values = {"router": {"config": {"drain_s_max": 54}, "terminationGracePeriodSeconds": 60}}
    assert render(merged(MODEL, values))
