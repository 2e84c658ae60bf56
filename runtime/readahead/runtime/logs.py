"""Logs to standard output: readable on a terminal, JSON lines everywhere else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from readahead.runtime.config import TelemetryConfig

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_PAYLOADS = frozenset(
    {"prompt", "prompt_token_ids", "token_ids", "messages", "content", "text", "user_id"}
)
"""Keys under which what people write could reach a log; their values never do."""

_CHATTY = ("asyncio", "grpc", "httpcore", "httpx", "opentelemetry", "urllib3", "uvicorn.access")
"""Loggers whose informational lines tell an operator nothing."""


def configure(telemetry: TelemetryConfig, *, process: str) -> None:
    """Sets up structlog and the standard library's logging for this process.

    Loggers of libraries lose their own handlers and go through the same formatter; a library that
    installs handlers as it is imported (vLLM) is to be imported before.

    Args:
        telemetry: level and format.
        process: "router", "prefill", …; on every line.
    """
    level = LEVELS[telemetry.log_level]
    is_console = telemetry.log_format == "console" or (
        telemetry.log_format == "auto" and sys.stdout.isatty()
    )
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_process(process),
        _without_payloads,
    ]
    structlog.configure(
        processors=[*first, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*first, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(_console() if is_console else _json()),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    _route_libraries(handler, level)


def _console() -> Sequence[Processor]:
    # structlog's default shows local variables of every frame, prompts included.
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _json() -> Sequence[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _route_libraries(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in list(root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _with_process(process: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add


def _without_payloads(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in _PAYLOADS & event.keys():
        event[key] = "(not logged)"
    return event
