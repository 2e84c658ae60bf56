"""Reads a process's settings for its command, and shows them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


class Component(StrEnum):
    """A process with settings of its own."""

    ROUTER = "router"
    WORKER = "worker"


USAGE_EXIT = 2
PASSWORD = re.compile(r"^(\w+://[^:/@]*):[^@/]+@")
"""In a URL: scheme, user, and what is between them and the host."""


def load_or_exit(component: Component, *, file: Path | None, overrides: Sequence[str]) -> Any:
    """The component's settings and their sources; ends the process with code 2 if they are bad."""
    from readahead.runtime import settings

    try:
        return settings.load(
            config_type(component),
            file=file,
            environ=os.environ,
            prefix=f"READAHEAD_{component.upper()}",
            overrides=overrides,
        )
    except settings.SettingsError as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(USAGE_EXIT) from error


def config_type(component: Component) -> type[Any]:
    """The settings' dataclass."""
    if component is Component.ROUTER:
        from readahead.router.config import RouterConfig

        return RouterConfig
    from readahead.services.config import WorkerConfig

    return WorkerConfig


def show(component: Component, *, file: Path | None, overrides: Sequence[str]) -> None:
    """Prints every setting, its value and where that came from."""
    from readahead.runtime import settings

    loaded = load_or_exit(component, file=file, overrides=overrides)
    table = Table(
        "setting", "value", "source", title=f"readahead {component}", title_justify="left"
    )
    for key, value in settings.leaves(loaded.config).items():
        source = loaded.sources[key]
        style = "dim" if source == settings.DEFAULT else None
        table.add_row(key, _shown(value), source, style=style)
    Console().print(table, highlight=False)


def schema(component: Component) -> None:
    """Prints the JSON schema of the settings."""
    from readahead.runtime import settings

    typer.echo(json.dumps(settings.json_schema(config_type(component)), indent=2))


def _shown(value: object) -> str:
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, str):
        value = PASSWORD.sub(r"\1:***@", value)  # a screen is looked at over shoulders
    return json.dumps(value, default=dataclasses.asdict)  # a list may hold sections
