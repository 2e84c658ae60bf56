"""`readahead tricks`: shows the two tricks that make the usual numbers look better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PLOT_SUFFIXES = (".svg", ".png", ".pdf")

Svg = Annotated[
    Path | None, typer.Option("--svg", help="Draw the picture into this .svg, .png or .pdf.")
]
Html = Annotated[
    Path | None, typer.Option("--html", help="Write the tables and the picture into this page.")
]


def tricks(
    *,
    seed: Annotated[int, typer.Option(help="Of arrivals and lengths.")] = 0,
    svg: Svg = None,
    html: Html = None,
) -> None:
    """Show what output delay and abandonment do to each number, on a simulated toy server.

    Exit status: 0 shown; 1 an extra is missing or a file cannot be written; 2 wrong usage.
    """
    if svg is not None and svg.suffix not in PLOT_SUFFIXES:
        raise typer.BadParameter(f"--svg must end with one of {', '.join(PLOT_SUFFIXES)}")
    _require_extras()
    from rich.console import Console

    from readahead.ruler.demo import demonstrate
    from readahead.ruler.demo_plot import write_plot
    from readahead.ruler.demo_table import tables, write_page

    shown = demonstrate(seed)
    console = Console()
    for table in tables(shown):
        console.print(table)
    try:
        if svg is not None:
            write_plot(shown, svg)
        if html is not None:
            write_page(shown, html)
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _require_extras() -> None:
    """The plots are an extra: say so instead of showing a traceback."""
    try:
        import matplotlib
    except ImportError as error:
        typer.echo(f"error: {error}; install readahead[ruler]", err=True)
        raise typer.Exit(1) from error
    del matplotlib
