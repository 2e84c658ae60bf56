"""`readahead compare`: several endpoints under the same workload, in alternating blocks."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from readahead.core.reading.score import Ruler
from readahead.loadgen.compare import block_order, compare, comparison_report
from readahead.loadgen.html_report import LoadReport, write_page
from readahead.loadgen.load import Prepared, job_of, prepare
from readahead.loadgen.load_offer import with_seed
from readahead.loadgen.load_run import Measured, measure
from readahead.loadgen.load_settings import ExitStatus, LoadSettings, Screens
from readahead.loadgen.load_target import sender_for
from readahead.loadgen.report_runs import LoadRun, read_run
from readahead.loadgen.senders import Sender, TargetError
from readahead.ruler.problems import FormatError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """A comparison."""

    load: LoadSettings
    """Of each block; its target is not used."""
    targets: Mapping[str, str]
    """By label, in the order of the table: the first is the one compared to."""
    blocks: int
    """Of each target."""
    records_folder: Path | None
    """None: records are not kept."""

    def block(self, label: str, number: int) -> LoadSettings:
        """One block: those of the same number have the same workload."""
        target, seed = self.targets[label], self.load.workload.seed + number
        return replace(
            self.load,
            target=target,
            workload=with_seed(self.load.workload, seed),
            description={**self.load.description, "target": target, "seed": seed},
        )


async def compare_targets(settings: CompareSettings, screens: Screens) -> ExitStatus:
    """Runs all blocks, then reports."""
    order = block_order(
        list(settings.targets), blocks=settings.blocks, seed=settings.load.workload.seed
    )
    async with contextlib.AsyncExitStack() as stack:
        folder = settings.records_folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="readahead-compare-"))
        )
        try:
            senders = {
                label: await stack.enter_async_context(
                    sender_for(target, is_chat=settings.load.is_chat, ca_path=settings.load.ca_path)
                )
                for label, target in settings.targets.items()
            }
        except OSError as error:
            screens.error(str(error))
            return ExitStatus.FAILED
        try:
            measured = await _measure_blocks(settings, order, senders, folder, screens)
            runs = {
                label: [_read(one.path, f"{label} block {number + 1}", settings.load.ruler)
                        for number, one in enumerate(blocks)]
                for label, blocks in measured.items()
            }  # fmt: skip
        except (TargetError, ValueError, FormatError) as error:
            screens.error(str(error))
            return ExitStatus.FAILED
        except OSError as error:
            screens.error(f"the records cannot be written: {error}")
            return ExitStatus.RECORDS_LOST
        return await asyncio.to_thread(_report, settings, order, runs, measured, screens)


def compare_records(
    groups: Mapping[str, Sequence[Path]], ruler: Ruler, *, html_path: Path | None, screens: Screens
) -> ExitStatus:
    """Compares records of runs that are over; the files of a label are its blocks, in order.

    Raises:
        ValueError: the labels have different numbers of files, or there is but one label.
    """
    counts = {len(paths) for paths in groups.values()}
    if len(groups) < 2 or len(counts) != 1:
        raise ValueError("a comparison needs as many records of each of two or more systems")
    try:
        runs = {
            label: [_read(path, f"{label} {path.stem}", ruler) for path in paths]
            for label, paths in groups.items()
        }
    except (FormatError, OSError) as error:
        screens.error(str(error))
        return ExitStatus.FAILED
    order = [label for label in groups for _ in range(next(iter(counts)))]
    return _show(runs, order, seed=0, html_path=html_path, screens=screens)


async def _measure_blocks(
    settings: CompareSettings,
    order: Sequence[str],
    senders: Mapping[str, Sender],
    folder: Path,
    screens: Screens,
) -> dict[str, list[Measured]]:
    measured: dict[str, list[Measured]] = {label: [] for label in settings.targets}
    first: dict[str, Prepared] = {}
    for label in order:
        number = len(measured[label])
        block = settings.block(label, number)
        if label in first:  # the idle system is measured once
            block = replace(block, zero_load_ttft=first[label].zero_load)
        prepared = await prepare(block, senders[label], screens)
        first.setdefault(label, prepared)
        title = f"{label}: {block.target}, block {number + 1} of {settings.blocks}"
        path = folder / f"{_file_name(label)}-{number + 1}.jsonl"
        job = await asyncio.to_thread(
            job_of, block, prepared, prepared.offers[0], path, title=title
        )
        one = await measure(senders[label], job, screens.err)
        if one.error is not None:
            raise one.error
        if one.is_interrupted:
            raise ValueError("the comparison was interrupted")
        measured[label].append(one)
    return measured


def _report(
    settings: CompareSettings,
    order: Sequence[str],
    runs: Mapping[str, Sequence[LoadRun]],
    measured: Mapping[str, Sequence[Measured]],
    screens: Screens,
) -> ExitStatus:
    status = _show(
        runs,
        order,
        seed=settings.load.workload.seed,
        html_path=settings.load.outputs.html_path,
        screens=screens,
    )
    if status is not ExitStatus.OK:
        return status
    if any(one.is_target_lost for blocks in measured.values() for one in blocks):
        return ExitStatus.TARGET_LOST
    return ExitStatus.OK


def _show(
    runs: Mapping[str, Sequence[LoadRun]],
    order: Sequence[str],
    *,
    seed: int,
    html_path: Path | None,
    screens: Screens,
) -> ExitStatus:
    found = compare(runs, order=order, seed=seed)
    screens.out.print(comparison_report(found))
    everything = [run for blocks in runs.values() for run in blocks]
    if html_path is not None:
        try:
            write_page(html_path, LoadReport(runs=everything, comparison=found))
        except OSError as error:
            screens.error(f"the report cannot be written: {error}")
            return ExitStatus.RECORDS_LOST
        screens.note(f"wrote {html_path}")
    invalid = [(run.label, reason) for run in everything for reason in run.invalid_because]
    for label, reason in invalid:
        screens.out.print(f"INVALID {label}: {reason}", style="bold red", markup=False)
    return ExitStatus.INVALID if invalid else ExitStatus.OK


def _read(path: Path, label: str, ruler: Ruler) -> LoadRun:
    return read_run(path, ruler, label=label)


def _file_name(label: str) -> str:
    return "".join(one if one.isalnum() or one in "-_." else "_" for one in label)
