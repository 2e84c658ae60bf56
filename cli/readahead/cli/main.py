"""The `readahead` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from readahead.cli.calibrate import calibrate
from readahead.cli.chat import chat
from readahead.cli.compare import compare
from readahead.cli.configuration import USAGE_EXIT, Component
from readahead.cli.load import load
from readahead.cli.reproduce import reproduce
from readahead.cli.score import score
from readahead.cli.simulate import simulate
from readahead.cli.tricks import tricks

app = typer.Typer(
    name="readahead",
    help="Serves language models with separate prefill and decode workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Show what is configured, and from where.", no_args_is_help=True)
app.add_typer(config_app, name="config")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of settings.", dir_okay=False, exists=True),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, as in doors.http_port=8001."),
]


@app.command()
def up(
    *,
    prefill: Annotated[int, typer.Option(help="Prefill workers.")] = 1,
    decode: Annotated[int, typer.Option(help="Decode workers.")] = 2,
    engine: Annotated[
        str, typer.Option(help="vllm, or emulated: a stand-in that runs no model.")
    ] = "vllm",
    model: Annotated[
        Path | None, typer.Option(help="Hugging Face folder. Default: a tiny model, made here.")
    ] = None,
    model_name: Annotated[
        str, typer.Option(help="Name that callers use. Default: the folder's.")
    ] = "",
    kv: Annotated[str, typer.Option(help="How KV caches move: nixl, grpc or auto.")] = "nixl",
    policy: Annotated[
        str,
        typer.Option(help="What decides each iteration: vllm, its own order, or a policy of ours."),
    ] = "vllm",
    redis: Annotated[str, typer.Option(help="redis://… Default: a redis-server of its own.")] = "",
    http_port: Annotated[int, typer.Option(help="OpenAI-compatible door; 0: any free.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC door; 0: any free.")] = 50051,
    otlp: Annotated[str, typer.Option(help="host:port of an OTLP gRPC receiver.")] = "",
    keep_logs: Annotated[
        bool, typer.Option("--keep-logs", help="Keep the logs of a run that ended well.")
    ] = False,
    drain_s_max: Annotated[
        float, typer.Option(help="Longest wait at the end for running requests, seconds.")
    ] = 5.0,
    iteration_logs: Annotated[
        Path | None, typer.Option(help="Folder for logs of each worker's iterations, to calibrate.")
    ] = None,
) -> None:
    """Start a whole cluster on this machine; Ctrl-C stops it."""
    from rich.console import Console

    from readahead.cli.up import supervisor
    from readahead.cli.up.options import UpOptions, UsageError

    options = UpOptions(
        prefill=prefill,
        decode=decode,
        engine=engine,
        model=model,
        model_name=model_name,
        kv=kv,
        policy=policy,
        redis=redis,
        http_port=http_port,
        grpc_port=grpc_port,
        otlp=otlp,
        keep_logs=keep_logs,
        drain_s_max=drain_s_max,
        iteration_logs=iteration_logs,
    )
    try:
        code = supervisor.up(options, Console(), os.environ)
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE_EXIT) from error
    raise typer.Exit(code)


@app.command()
def router(*, config: ConfigFile = None, set_: Overrides = None) -> None:
    """Run a router."""
    from readahead.cli import serve

    serve.router(config, set_ or [])


@app.command()
def worker(
    *,
    role: Annotated[str, typer.Option(help="prefill or decode.")] = "",
    model: Annotated[str, typer.Option(help="Hugging Face folder.")] = "",
    port: Annotated[int | None, typer.Option(help="gRPC port; 0: any free.")] = None,
    config: ConfigFile = None,
    set_: Overrides = None,
) -> None:
    """Run a worker."""
    from readahead.cli import serve

    direct = {"role": role, "engine.model_path": model, "port": "" if port is None else str(port)}
    overrides = [f"{key}={value}" for key, value in direct.items() if value]
    serve.worker(config, [*overrides, *(set_ or [])])


app.command()(calibrate)
app.command()(chat)
app.command()(compare)
app.command()(load)
app.command()(reproduce)
app.command()(score)
app.command()(simulate)
app.command()(tricks)


@app.command()
def doctor(
    *,
    model: Annotated[Path | None, typer.Option(help="Hugging Face folder to look at.")] = None,
    http_port: Annotated[int, typer.Option(help="HTTP port to look at.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port to look at.")] = 50051,
) -> None:
    """Say what is missing on this machine, and how to get it."""
    from readahead.cli import doctor as examination

    raise typer.Exit(examination.examine(model=model, ports={"HTTP": http_port, "gRPC": grpc_port}))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(metadata.version("readahead"))


@config_app.command("show")
def config_show(
    *,
    component: Annotated[Component, typer.Option(help="Whose settings.")] = Component.ROUTER,
    config: ConfigFile = None,
    set_: Overrides = None,
) -> None:
    """Print the settings in force and the source of each."""
    from readahead.cli import configuration

    configuration.show(component, file=config, overrides=set_ or [])


@config_app.command("schema")
def config_schema(
    *, component: Annotated[Component, typer.Option(help="Whose settings.")] = Component.ROUTER
) -> None:
    """Print the JSON schema of the settings."""
    from readahead.cli import configuration

    configuration.schema(component)


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
