"""One run against one target: measured, recorded, described."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from readahead.loadgen import meta
from readahead.loadgen.live_view import LiveHead
from readahead.loadgen.load_offer import Offer
from readahead.loadgen.progress import Progress
from readahead.loadgen.records import Outcome, RecordFile
from readahead.loadgen.senders import Sender, SendOptions, TargetError
from readahead.loadgen.session_run import Hooks, RunLimits, SessionRun
from readahead.loadgen.statistics import Summary, summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJob:
    """What one run is."""

    title: str
    offer: Offer
    options: SendOptions
    limits: RunLimits
    path: Path
    """Of the records."""
    description: Mapping[str, object]
    """What the records' description says besides the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run that is over."""

    path: Path
    summary: Summary
    error: OSError | None
    """Why records were lost."""
    records_lost: int
    is_interrupted: bool
    is_target_lost: bool
    """Requests failed, and the target does not answer any more."""


async def measure(sender: Sender, job: RunJob, screen: Console) -> Measured:
    """Runs, and writes the records and their description.

    Raises:
        OSError: the description, or the head of the records, cannot be written.
    """
    await _write_meta(job.path, {**job.description, "is_complete": False})
    offer = job.offer
    head = LiveHead(title=job.title, requests=offer.requests, rate_req_s=offer.rate_req_s)
    async with contextlib.AsyncExitStack() as stack:
        file = await stack.enter_async_context(RecordFile(job.path))
        progress = stack.enter_context(Progress(screen, head))
        stop = stack.enter_context(_interrupt())
        run = SessionRun(
            sender,
            job.options,
            job.limits,
            texts=offer.texts,
            run_id=f"load-{uuid.uuid4().hex[:8]}",
            hooks=Hooks(file=file, stop=stop, refresh=progress.refresh),
        )
        progress.records = run.records
        if offer.closed_users is None:
            await run.offer(offer.sessions)
        else:
            await run.offer_closed(
                offer.sessions, users=offer.closed_users, duration_s=offer.duration_s
            )
    summary = summarise(
        run.records,
        rate_req_s=offer.rate_req_s,
        dropped=run.counts.dropped,
        is_interrupted=run.is_interrupted,
    )
    is_lost = bool(summary.outcomes[Outcome.FAILED]) and not await _answers(sender)
    ended: dict[str, object] = {"is_complete": True, "is_target_lost": is_lost}
    ended |= meta.results(summary, records_lost=file.lost)
    with contextlib.suppress(OSError) if file.error is not None else contextlib.nullcontext():
        await _write_meta(job.path, {**job.description, **ended})
    return Measured(
        path=job.path,
        summary=summary,
        error=file.error,
        records_lost=file.lost,
        is_interrupted=run.is_interrupted,
        is_target_lost=is_lost,
    )


async def _answers(sender: Sender) -> bool:
    """Whether the target can still be reached."""
    try:
        await sender.models()
    except TargetError:
        return False
    return True


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
