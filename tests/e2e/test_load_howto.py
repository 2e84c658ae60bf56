"""The commands of docs/how-to/measure-your-system.md, word for word but for the addresses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from load_cluster_run import EXIT_INVALID, EXIT_MEASURED, readahead
from typer.testing import CliRunner
from up_process import UpProcess
from waiting import unused_ports

from readahead.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "measure-your-system.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}readahead (.*)$", TEXT, re.M)
[WORKLOAD] = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.M | re.S)
EXIT_UNREACHABLE = 1
ADDRESS = re.compile(r"127\.0\.0\.1:800[01]")


def _run(cluster: UpProcess, folder: Path, command: str) -> None:
    """It measures, and leaves the files that it names."""
    (folder / "people.toml").write_text(WORKLOAD, encoding="utf-8")
    words = shlex.split(ADDRESS.sub(cluster.http, command))
    if words[0] == "load" and "--target" not in words:
        words += ["--target", f"http://{cluster.http}"]
    done = readahead(*words, cwd=folder)
    assert done.returncode in {EXIT_MEASURED, EXIT_INVALID}, done.stdout + done.stderr
    if done.returncode == EXIT_INVALID:
        assert "were late" in done.stdout
    named = [word for word in words if re.fullmatch(r"[\w-]+\.(html|jsonl|xml)", word)]
    assert named
    for name in named:
        assert (folder / name).stat().st_size > 500 or name.endswith(".xml")


def test_there_are_commands() -> None:
    """Of every kind that the page promises."""
    assert len(COMMANDS) == 6
    for part in ("--scenario", "--sweep", "--workload people.toml", "compare ", "--assert"):
        assert any(part in command for command in COMMANDS), part


@pytest.mark.parametrize("command", COMMANDS)
def test_each_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the server is missing: no flag is unknown, no value refused."""
    monkeypatch.chdir(tmp_path)
    Path("people.toml").write_text(WORKLOAD, encoding="utf-8")
    [nowhere] = unused_ports(1)
    words = shlex.split(ADDRESS.sub(f"127.0.0.1:{nowhere}", command))
    if words[0] == "load" and "--target" not in words:
        words += ["--target", f"http://127.0.0.1:{nowhere}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == EXIT_UNREACHABLE, done.output
    assert "cannot be reached" in done.output


def test_the_first_run(cluster: UpProcess, tmp_path: Path) -> None:
    """What somebody tries first."""
    _run(cluster, tmp_path, COMMANDS[0])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS[1:])
def test_the_rest(cluster: UpProcess, tmp_path: Path, command: str) -> None:
    """Scenario, sweep, workload file, comparison, assertions."""
    _run(cluster, tmp_path, command)
