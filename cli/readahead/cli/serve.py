"""Runs one process of a cluster, as the chart does and as `readahead up` does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from readahead.cli.configuration import USAGE_EXIT, Component, load_or_exit

FAILURE_EXIT = 1


def router(file: Path | None, overrides: Sequence[str]) -> None:
    """Serves until SIGTERM or SIGINT."""
    config = load_or_exit(Component.ROUTER, file=file, overrides=overrides).config
    if not config.model.path:
        _refuse("model.path (default): is needed: the router reads the model's tokenizer")
    from readahead.router import app

    try:
        with asyncio.Runner(loop_factory=app.loop_factory) as runner:
            runner.run(app.serve(config))
    except (OSError, ValueError) as error:
        _fail(error)


def worker(file: Path | None, overrides: Sequence[str]) -> None:
    """Serves until SIGTERM or SIGINT."""
    config = load_or_exit(Component.WORKER, file=file, overrides=overrides).config
    if config.engine.kind == "vllm" and not config.engine.model_path:
        _refuse("engine.model_path (default): is needed by the engine vllm")
    from readahead.services.worker import app

    try:
        asyncio.run(app.serve(config))
    except OSError as error:
        _fail(error)


def _refuse(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(USAGE_EXIT)


def _fail(error: OSError | ValueError) -> None:
    """A port in use, a model folder of no use: one line says it all."""
    typer.echo(f"error: {error}", err=True)
    sys.exit(FAILURE_EXIT)
