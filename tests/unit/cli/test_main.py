"""The command line: quick to start, clear when it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from readahead.cli.main import app

HEAVY = (
    "vllm",
    "torch",
    "transformers",
    "grpc",
    "pydantic",
    "numpy",
    "redis",
    "readahead.router.app",
)


def test_help_imports_nothing_heavy() -> None:
    """So that `readahead --help` answers at once."""
    code = (
        "import sys; sys.argv = ['readahead', '--help']\n"
        "from readahead.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_supervisor_imports_neither_vllm_nor_grpc() -> None:
    """It is the one process that must stay when the others fall."""
    code = (
        "import sys, readahead.cli.up.supervisor\n"
        "print([name for name in ('vllm', 'torch', 'grpc', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["router", "--set", "doors.http_prot=1"], "did you mean doors.http_port"),
        (["router"], "model.path"),
        (["worker", "--role", "prefil"], "role"),
        (["worker", "--role", "prefill"], "engine.model_path"),
        (["worker"], "role"),
        (["up", "--engine", "llama", "--http-port", "0", "--grpc-port", "0"], "--engine"),
        (["config", "show", "--set", "worker_silence_s_max=-1"], "worker_silence_s_max"),
    ],
)
def test_bad_configuration_exits_with_two(arguments: list[str], said: str) -> None:
    """One line that names what is wrong, no traceback."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output


def test_config_show_names_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment, --set and default, each where it applies."""
    file = tmp_path / "router.yaml"
    file.write_text("doors: {http_port: 8123}\n")
    monkeypatch.setenv("READAHEAD_ROUTER__DRAIN_S_MAX", "7")
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["config", "show", "--config", str(file), "--set", "model.name=m"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = {line.split("│")[1].strip(): line for line in result.output.splitlines() if "│" in line}
    assert "8123" in rows["doors.http_port"]
    assert "router.yaml" in rows["doors.http_port"]
    assert "READAHEAD_ROUTER__DRAIN_S_MAX" in rows["drain_s_max"]
    assert "--set" in rows["model.name"]
    assert "default" in rows["doors.grpc_port"]


@pytest.mark.parametrize("component", ["router", "worker"])
def test_config_schema_is_strict_json_schema(component: str) -> None:
    """What the chart embeds."""
    result = CliRunner().invoke(app, ["config", "schema", "--component", component])
    schema = json.loads(result.output)
    assert schema["additionalProperties"] is False
    assert "telemetry" in schema["properties"]
