"""Log lines: one format for ours and for libraries, and nothing that people wrote."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from readahead.runtime import logs
from readahead.runtime.config import TelemetryConfig


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is the process's; each test gives it back as it was."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in ("root", *logs._CHATTY)}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()


def configure(**settings: str) -> None:
    logs.configure(TelemetryConfig(**settings), process="router")  # type: ignore[arg-type]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_is_json_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Event, level, time, process and what was given."""
    configure()
    structlog.get_logger().info("request_finished", request_id="r-1", output_tokens=7)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request_finished",
        "level": "info",
        "process": "router",
        "request_id": "r-1",
        "output_tokens": 7,
    }


def test_a_module_logger_made_before_follows(capsys: pytest.CaptureFixture[str]) -> None:
    """`_log = get_logger()` at a module's top works, also through a second configuration."""
    logger = structlog.get_logger()
    configure(log_level="error")
    logger.info("worker_joined")
    configure(log_level="info")
    logger.info("worker_lost")
    assert [line["event"] for line in lines(capsys)] == ["worker_lost"]


def test_libraries_speak_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    """A library's own handlers are taken away, and its lines have its name."""
    theirs = logging.getLogger("somebodys.library")
    theirs.addHandler(logging.StreamHandler())
    theirs.propagate = False
    configure()
    theirs.warning("took %s s", 3)
    captured = capsys.readouterr()
    assert captured.err == ""
    (line,) = map(json.loads, captured.out.splitlines())
    assert (line["event"], line["logger"], line["level"], line["process"]) == (
        "took 3 s",
        "somebodys.library",
        "warning",
        "router",
    )


def test_the_level_holds_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Below it nothing is written; chatty libraries start at warning."""
    configure(log_level="info")
    structlog.get_logger().debug("step_observed")
    logging.getLogger("somebodys.library").debug("detail")
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("somebodys.library").info("news")
    assert [line["event"] for line in lines(capsys)] == ["news"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_payloads_and_local_variables_never_show(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    """Neither as a value of a known key nor through a traceback's variables."""
    configure(log_format=log_format)

    def fail(words: str) -> None:
        raise RuntimeError(f"{len(words)} characters")

    written_by_a_person = " ".join(("my", "secret", "diary"))
    try:
        fail(written_by_a_person)
    except RuntimeError as error:
        structlog.get_logger().error(
            "handler_failed", exc_info=error, prompt=written_by_a_person, text=written_by_a_person
        )
    written = capsys.readouterr().out
    assert "my secret" not in written
    assert "RuntimeError: 15 characters" in written
    assert "in fail" in written


def test_console_lines_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    """No JSON, and no colours where there is no terminal."""
    configure(log_format="console")
    structlog.get_logger().info("worker_joined", worker_id="decode-a")
    written = capsys.readouterr().out
    assert "worker_joined" in written
    assert "worker_id=decode-a" in written
    assert "\x1b" not in written
    assert not written.startswith("{")


@pytest.mark.parametrize("level", ["", "trace", "INFO"])
def test_an_unknown_level_is_refused(level: str) -> None:
    """Where the settings are made, not at the first line."""
    with pytest.raises(ValueError, match=r"telemetry\.log_level must be debug, info"):
        TelemetryConfig(log_level=level)
    assert set(logs.LEVELS) == {"debug", "info", "warning", "error"}
