"""`readahead load`: one run, or a sweep of rates, from its settings to its exit status."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from readahead.loadgen import meta
from readahead.loadgen.assertions import Checked, check, write_junit
from readahead.loadgen.html_report import LoadReport, write_page
from readahead.loadgen.load_calibration import (
    calibration_lengths,
    measure_zero_load_ttft,
    promises_anything,
)
from readahead.loadgen.load_offer import Offer, Target, at_rate, make_offer, prompts_for
from readahead.loadgen.load_run import Measured, RunJob, measure
from readahead.loadgen.load_settings import ExitStatus, LoadSettings, Outputs, Screens
from readahead.loadgen.load_target import (
    GRPC_SCHEMES,
    check_target,
    choose_model,
    engine_of,
    sender_for,
)
from readahead.loadgen.records import Outcome
from readahead.loadgen.report import report, ruler_report, score_report, sweep_report
from readahead.loadgen.report_runs import LoadRun, read_run
from readahead.loadgen.senders import Sender, SendOptions, TargetError
from readahead.loadgen.sweep import SweepPoint
from readahead.ruler.problems import FormatError
from readahead.ruler.promises import ZeroLoadTtft

__all__ = [
    "ExitStatus",
    "LoadSettings",
    "Outputs",
    "Screens",
    "check_target",
    "choose_model",
    "load",
    "sender_for",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A target that answers, and what it is asked."""

    sender: Sender
    options: SendOptions
    engine: str | None
    offers: Sequence[Offer]
    """One, or one for each rate of a sweep."""
    zero_load: ZeroLoadTtft | None


async def load(settings: LoadSettings, screens: Screens) -> ExitStatus:
    """Runs, reports, writes the records."""
    try:
        sender = sender_for(settings.target, is_chat=settings.is_chat, ca_path=settings.ca_path)
    except OSError as error:
        screens.error(str(error))
        return ExitStatus.FAILED
    async with sender:
        try:
            prepared = await prepare(settings, sender, screens)
        except (TargetError, OSError, ValueError) as error:
            screens.error(str(error))
            return ExitStatus.FAILED
        with tempfile.TemporaryDirectory(prefix="readahead-load-") as folder:
            try:
                measured = await _measure_all(settings, prepared, Path(folder), screens)
            except OSError as error:
                screens.error(f"the records cannot be written: {error}")
                return ExitStatus.RECORDS_LOST
            return await asyncio.to_thread(_conclude, settings, prepared, measured, screens)


async def prepare(settings: LoadSettings, sender: Sender, screens: Screens) -> Prepared:
    """Asks the target what it is, makes the workload, and measures the idle system if need be.

    Raises:
        TargetError: the target cannot be used.
        OSError: a file of the workload cannot be read.
        ValueError: the workload cannot be made.
    """
    model = choose_model(await sender.models(), settings.options.model)
    options = replace(settings.options, model=model)
    target = Target(
        takes_ids=settings.target.startswith(GRPC_SCHEMES) and not settings.is_chat,
        model_path=settings.model_path,
    )
    specs = [at_rate(settings.workload, rate) for rate in settings.rates_req_s]
    offers = [
        await asyncio.to_thread(make_offer, spec, target, pace_tok_s=options.pace_tok_s)
        for spec in specs or [settings.workload]
    ]
    zero_load = settings.zero_load_ttft
    if zero_load is None and promises_anything(offers[0].sessions):
        screens.note("measuring the time to the first token of the idle system")
        zero_load = await measure_zero_load_ttft(
            sender,
            options,
            await asyncio.to_thread(prompts_for, target, seed=settings.workload.seed),
            lengths=calibration_lengths(offers[0].sessions),
        )
    if settings.tells_slo:
        options = replace(options, tells_slo=_told(sender, zero_load))
    return Prepared(
        sender=sender,
        options=options,
        engine=await engine_of(settings.target, model, ca_path=settings.ca_path),
        offers=offers,
        zero_load=zero_load,
    )


def _told(sender: Sender, zero_load: ZeroLoadTtft | None) -> ZeroLoadTtft:
    if not sender.is_ours:
        raise TargetError("the target is no Readahead router, so it cannot be told SLOs")
    if zero_load is None:
        raise ValueError("the workload promises nothing that could be told")
    return zero_load


def job_of(
    settings: LoadSettings, prepared: Prepared, offer: Offer, path: Path, *, title: str
) -> RunJob:
    """One run of what was prepared."""
    described = dict(settings.description)
    if settings.rates_req_s:
        described["rate_req_s"] = offer.rate_req_s
    description = meta.describe({**described, "model": prepared.options.model})
    description["engine"] = prepared.engine
    if prepared.zero_load is not None:
        description["zero_load_ttft"] = prepared.zero_load.describe()
    return RunJob(
        title=title,
        offer=offer,
        options=prepared.options,
        limits=settings.limits,
        path=path,
        description=description,
    )


async def _measure_all(
    settings: LoadSettings, prepared: Prepared, folder: Path, screens: Screens
) -> list[Measured]:
    measured: list[Measured] = []
    for offer in prepared.offers:
        path = settings.records_path or folder / "run.jsonl"
        title = f"load on {settings.target}"
        if settings.rates_req_s:
            path = path.with_name(f"{path.stem}-{offer.rate_req_s:g}{path.suffix}")
            title += f", {offer.rate_req_s:g} req/s"
        job = await asyncio.to_thread(job_of, settings, prepared, offer, path, title=title)
        measured.append(await measure(prepared.sender, job, screens.err))
        if measured[-1].is_interrupted:
            break
    return measured


def _conclude(
    settings: LoadSettings, prepared: Prepared, measured: Sequence[Measured], screens: Screens
) -> ExitStatus:
    """Everything that follows the last request."""
    for one in measured:
        if settings.rates_req_s:
            screens.out.rule(one.path.stem.removeprefix("run-"), align="left", style="dim")
        screens.out.print(report(one.summary))
    lost = next((one for one in measured if one.error is not None), None)
    if lost is not None:
        count = f" ({lost.records_lost} records are lost)" if lost.records_lost else ""
        screens.error(f"the records cannot be written: {lost.error}{count}")
        return ExitStatus.RECORDS_LOST
    runs = _runs(settings, prepared, measured, screens)
    points = _points(settings, runs)
    for run in runs:
        screens.out.print(score_report(run))
    if runs:
        screens.out.print(ruler_report(runs[0]))
    if points:
        screens.out.print(sweep_report(points))
    checked = [
        one for run in runs for one in check(settings.outputs.assertions, run.score, run=run.label)
    ]
    for found in checked:
        screens.out.print(str(found), style="" if found.is_held else "bold red", markup=False)
    if not _write_outputs(settings.outputs, runs, points, checked, screens):
        return ExitStatus.RECORDS_LOST
    return _status(measured, checked, expected=bool(settings.outputs.assertions))


def _runs(
    settings: LoadSettings, prepared: Prepared, measured: Sequence[Measured], screens: Screens
) -> list[LoadRun]:
    """The runs that can be scored, read back from their records."""
    runs = []
    for offer, one in zip(prepared.offers, measured, strict=False):
        label = f"{offer.rate_req_s:g} req/s" if settings.rates_req_s else "run"
        try:
            runs.append(read_run(one.path, settings.ruler, label=label))
        except FormatError as error:
            screens.error(f"{label} cannot be scored: {error}")
    return runs


def _points(settings: LoadSettings, runs: Sequence[LoadRun]) -> list[SweepPoint]:
    if not settings.rates_req_s:
        return []
    return [
        SweepPoint(
            rate_req_s=float(run.label.split()[0]),
            score=run.score,
            is_valid=not run.invalid_because,
        )
        for run in runs
    ]


def _write_outputs(
    outputs: Outputs,
    runs: Sequence[LoadRun],
    points: Sequence[SweepPoint],
    checked: Sequence[Checked],
    screens: Screens,
) -> bool:
    """False: the disk did not take them."""
    try:
        if outputs.html_path is not None and runs:
            write_page(outputs.html_path, LoadReport(runs=runs, points=points, checked=checked))
            screens.note(f"wrote {outputs.html_path}")
        if outputs.junit_path is not None:
            problems = [reason for run in runs for reason in run.invalid_because]
            if not runs:
                problems.append("no request can be scored")
            write_junit(outputs.junit_path, checked, problems=problems)
            screens.note(f"wrote {outputs.junit_path}")
    except OSError as error:
        screens.error(f"the report cannot be written: {error}")
        return False
    return True


def _status(
    measured: Sequence[Measured], checked: Sequence[Checked], *, expected: bool
) -> ExitStatus:
    """The worst of what happened. A sweep past the peak may well have invalid runs: it counts as
    measured when one is valid."""
    if any(one.is_target_lost for one in measured):
        return ExitStatus.TARGET_LOST
    valid = [one for one in measured if not one.summary.invalid_because]
    if not valid or any(one.is_interrupted for one in measured):
        return ExitStatus.INVALID
    if not any(one.summary.outcomes[Outcome.FINISHED] for one in measured):
        return ExitStatus.FAILED
    if expected and (not checked or not all(one.is_held for one in checked)):
        return ExitStatus.ASSERTION_FAILED
    return ExitStatus.OK
