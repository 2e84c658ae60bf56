"""One run of load, from its settings to its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from readahead.client.connection import address_of
from readahead.loadgen import meta
from readahead.loadgen.grpc_sender import GrpcSender
from readahead.loadgen.http_sender import HttpSender
from readahead.loadgen.progress import Progress
from readahead.loadgen.prompts import (
    Prompts,
    TextPrompts,
    TokenIdPrompts,
    WordPrompts,
    load_tokenizer,
    plain_token_ids,
)
from readahead.loadgen.records import Outcome, RecordFile
from readahead.loadgen.report import report
from readahead.loadgen.runner import Run, RunLimits
from readahead.loadgen.senders import Sender, SendOptions, TargetError
from readahead.loadgen.statistics import Summary, summarise
from readahead.loadgen.workload import PlannedRequest, WorkloadSpec, plan


class ExitStatus(IntEnum):
    """What a run says to the shell."""

    OK = 0
    FAILED = 1
    """The target cannot be used, or no request finished."""
    INVALID = 3
    """The run measured something other than it was told to."""
    RECORDS_LOST = 4
    """The disk did not take all of the records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """All of a run's settings."""

    target: str
    """http://…, https://… or grpc://host:port."""
    is_chat: bool
    workload: WorkloadSpec
    options: SendOptions
    limits: RunLimits
    model_path: Path | None
    """Folder with the tokenizer; None: prompts are words."""
    records_path: Path | None
    description: Mapping[str, object]
    """The settings as given, for the records' description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screens:
    """Where people read."""

    out: Console
    """The report."""
    err: Console
    """Progress and errors."""

    def error(self, message: str) -> None:
        """Shows what went wrong."""
        self.err.print(f"error: {message}", style="bold red", markup=False, highlight=False)


async def load(settings: LoadSettings, screens: Screens) -> ExitStatus:
    """Runs, reports, writes the records."""
    sender = sender_for(settings.target, is_chat=settings.is_chat)
    async with sender:
        try:
            model = choose_model(await sender.models(), settings.options.model)
            workload = await asyncio.to_thread(_make_workload, settings)
        except (TargetError, OSError, ValueError) as error:
            screens.error(str(error))
            return ExitStatus.FAILED
        options = SendOptions(
            model=model,
            timeout_s=settings.options.timeout_s,
            pace_tok_s=settings.options.pace_tok_s,
            ignore_eos=settings.options.ignore_eos,
        )
        return await _run(settings, options, sender, workload, screens)


def check_target(target: str) -> None:
    """Raises ValueError unless a sender knows the target's form."""
    if target.startswith("grpc://"):
        address_of(target)
    elif not (target.startswith(("http://", "https://")) and urlsplit(target).hostname):
        raise ValueError(f"a target is http://…, https://… or grpc://host:port, got {target!r}")


def sender_for(target: str, *, is_chat: bool) -> Sender:
    """The sender for a target that has been checked."""
    if target.startswith("grpc://"):
        return GrpcSender(target, is_chat=is_chat)
    return HttpSender(target, is_chat=is_chat)


def choose_model(served: Sequence[str], wanted: str) -> str:
    """The model to ask for.

    Raises:
        TargetError: it is not served, or there is no telling which is meant.
    """
    if wanted and (wanted in served or not served):
        return wanted
    if wanted:
        raise TargetError(f"no model {wanted!r} is served, but {', '.join(served)}")
    if len(served) == 1:
        return served[0]
    choice = f"serves {', '.join(served)}" if served else "does not say what it serves"
    raise TargetError(f"the target {choice}: choose with --model")


def _make_workload(settings: LoadSettings) -> list[PlannedRequest]:
    prompts: Prompts = WordPrompts()
    if settings.model_path is not None:
        tokenizer = load_tokenizer(settings.model_path)
        takes_ids = settings.target.startswith("grpc://") and not settings.is_chat
        prompts = (
            TokenIdPrompts(plain_token_ids(tokenizer)) if takes_ids else TextPrompts(tokenizer)
        )
    workload = plan(settings.workload, prompts, run_id=f"load-{uuid.uuid4().hex[:8]}")
    if not workload:
        raise ValueError("no request arrives within the duration at this rate")
    return workload


async def _run(
    settings: LoadSettings,
    options: SendOptions,
    sender: Sender,
    workload: Sequence[PlannedRequest],
    screens: Screens,
) -> ExitStatus:
    description = await asyncio.to_thread(
        meta.describe, {**settings.description, "model": options.model}
    )
    path = settings.records_path
    file: RecordFile | None = None
    try:
        async with contextlib.AsyncExitStack() as stack:
            if path is not None:
                await _write_meta(path, {**description, "is_complete": False})
                file = await stack.enter_async_context(RecordFile(path))
            progress = stack.enter_context(Progress(screens.err, requests=len(workload)))
            stop = stack.enter_context(_interrupt())
            run = Run(
                sender, options, settings.limits, file=file, stop=stop, refresh=progress.refresh
            )
            await run.offer(workload)
        summary = summarise(
            run.records,
            rate_req_s=settings.workload.rate_req_s,
            dropped=run.counts.dropped,
            is_interrupted=run.is_interrupted,
        )
        screens.out.print(report(summary))
        if path is not None and file is not None:
            outcome = meta.results(summary, records_lost=file.lost)
            await _write_meta(path, {**description, "is_complete": True, **outcome})
            if file.error is not None:
                raise file.error
    except OSError as error:
        lost = f" ({file.lost} records are lost)" if file is not None and file.lost else ""
        screens.error(f"the records cannot be written: {error}{lost}")
        return ExitStatus.RECORDS_LOST
    return _status(summary)


def _status(summary: Summary) -> ExitStatus:
    if summary.invalid_because:
        return ExitStatus.INVALID
    return ExitStatus.OK if summary.outcomes[Outcome.FINISHED] else ExitStatus.FAILED


async def _write_meta(records: Path, content: Mapping[str, object]) -> None:
    await asyncio.to_thread(meta.write, meta.meta_path(records), content)


@contextlib.contextmanager
def _interrupt() -> Iterator[asyncio.Event]:
    """An event that the first Ctrl-C sets: the run is ended in order and reported."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
