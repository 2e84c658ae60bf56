"""Carries out `readahead up`: one cluster, from the first check to the last process's end."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Mapping
from importlib import metadata

from rich.console import Console
from rich.panel import Panel

from readahead.cli.up import run_directory, tiny_model
from readahead.cli.up.child import ChildDiedError
from readahead.cli.up.cluster import Cluster, NotReadyError
from readahead.cli.up.descendants import adopt_orphans
from readahead.cli.up.options import UpOptions, UsageError
from readahead.cli.up.plan import Plan, make_plan, process_environment
from readahead.cli.up.progress import Progress
from readahead.router.config import ModelConfig
from readahead.runtime.settings import SettingsError

TINY_MODEL_NAME = "tiny"


class _StoppedError(Exception):
    """A signal asked for the end."""


def up(options: UpOptions, console: Console, environ: Mapping[str, str]) -> int:
    """Runs a cluster until a signal comes or a process dies; returns the exit code.

    Raises:
        UsageError: the options cannot be carried out.
    """
    options.check()
    adopt_orphans()
    with Progress(console) as progress:
        model = _model(options, progress, environ)
        folder = run_directory.create(tiny_model.cache_folder(environ))
        try:
            plan = make_plan(
                options, model=model, folder=folder, gpus=_gpus(options), environ=environ
            )
        except SettingsError as error:
            raise UsageError(str(error)) from error
        code = asyncio.run(_run(plan, console, progress, environ))
    if code == 0 and not options.keep_logs:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"logs: {folder}", highlight=False, soft_wrap=True)
    return code


async def _run(plan: Plan, console: Console, progress: Progress, environ: Mapping[str, str]) -> int:
    cluster = Cluster(plan, progress, process_environment(environ))
    stop = asyncio.Event()

    def heed() -> None:
        if stop.is_set():  # Whoever asks twice does not want to wait.
            cluster.kill()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, heed)
    code = 0
    try:
        async with asyncio.TaskGroup() as tasks:
            ready = asyncio.Event()
            tasks.create_task(_raise_on(stop))
            tasks.create_task(_announce(ready, plan, console, progress))
            await cluster.run(ready=ready)
    except* _StoppedError:
        pass
    except* ChildDiedError as died:
        _report(died, console)
        code = 1
    except* NotReadyError as late:
        console.print(f"error: {_first(late)}", style="red", highlight=False, soft_wrap=True)
        code = 1
    finally:
        await cluster.stop()
        progress.done("everything is stopped")
    return code


async def _raise_on(stop: asyncio.Event) -> None:
    await stop.wait()
    raise _StoppedError


async def _announce(ready: asyncio.Event, plan: Plan, console: Console, progress: Progress) -> None:
    await ready.wait()
    progress.ready()
    doors, model = plan.router.doors, plan.router.model.name
    engine = plan.workers[0].config.engine.kind
    http = f"http://{doors.host}:{doors.http_port}"
    lines = [
        f"OpenAI-compatible  {http}/v1",
        f"gRPC               {doors.host}:{doors.grpc_port}",
        f"model              {model}",
        f"engine             {engine}, {_pools(plan)}",
        f"logs               {plan.folder}",
    ]
    text = "\n".join(lines)
    console.print(Panel(text, title="Readahead is ready", expand=False), highlight=False)
    if engine == "emulated":
        console.print(
            "EMULATED ENGINE: no model runs. Text, timings and KV caches are made up.",
            style="bold yellow",
        )
    curl = (
        f"curl -N {http}/v1/completions -H 'Content-Type: application/json' \\\n"
        f'  -d \'{{"model": "{model}", "prompt": "The river begins", '
        '"max_tokens": 40, "stream": true}\''
    )
    console.print("Try it:\n", highlight=False)
    console.print(curl, highlight=False, markup=False, soft_wrap=True)
    console.print("\nCtrl-C stops everything.", highlight=False)


def _pools(plan: Plan) -> str:
    roles = [str(worker.config.role) for worker in plan.workers]
    return f"{roles.count('prefill')} prefill + {roles.count('decode')} decode"


def _report(died: BaseExceptionGroup[ChildDiedError], console: Console) -> None:
    error = _first(died)
    assert isinstance(error, ChildDiedError)
    console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
    if error.last_lines:
        console.print(f"Its last lines ({error.log}):", highlight=False, soft_wrap=True)
        for line in error.last_lines:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _model(options: UpOptions, progress: Progress, environ: Mapping[str, str]) -> ModelConfig:
    """The model's folder and name; makes the tiny one unless there is one."""
    if options.model is not None:
        path = options.model.resolve()
        return ModelConfig(path=str(path), name=options.model_name or path.name)
    progress.doing("looking for the tiny model")
    path = tiny_model.ensure(tiny_model.TinyModel(), environ)
    progress.done(f"tiny model in {path}")
    return ModelConfig(path=str(path), name=options.model_name or TINY_MODEL_NAME)


def _gpus(options: UpOptions) -> int:
    """GPUs that the workers' engines will use: none with the CPU build of vLLM."""
    if options.engine != "vllm":
        return 0
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return 0
    return count_gpus()


def count_gpus() -> int:
    """NVIDIA GPUs of this machine."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    listing = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
