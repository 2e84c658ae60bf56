"""`readahead load` and `compare`, from flags to exit status, against a router in process."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from cluster_in_process import Cluster, cluster, router_config, toy_engine
from pem_authority import Authority
from rich.console import Console
from tcp_link import tcp_link
from worker_server import wait_until

from readahead.cli.load_build import load_settings
from readahead.cli.load_options import Endpoint, TargetArguments, WorkloadArguments
from readahead.core.cluster import Role
from readahead.loadgen.assertions import parse_assertion
from readahead.loadgen.compare_run import CompareSettings, compare_targets
from readahead.loadgen.load import load
from readahead.loadgen.load_settings import ExitStatus, LoadSettings, Outputs, Screens
from readahead.router.config import DoorsConfig
from readahead.runtime.config import TlsConfig

MEASURED = {ExitStatus.OK, ExitStatus.INVALID}
"""On a busy machine sends may be late, and such a run is invalid; it has its numbers all the
same."""

MIX = """
seed = 1
limits = {sessions = 6}
arrivals = "poisson:rate=40"

[[mix]]
scenario = "chatbot"
tenant = "acme"
parameters = {length_scale = 0.02, turns_max = 1}

[[mix]]
scenario = "tool-calling"
tenant = "agents"
parameters = {length_scale = 0.02, calls_mean = 1.5, tool_time = {median_s = 0.01}}
"""


@asynccontextmanager
async def cluster_of_two(**doors: Any) -> AsyncIterator[Cluster]:
    """A router, one prefill worker, one decode worker."""
    engines = {
        "p0": (Role.PREFILL, toy_engine(Role.PREFILL)),
        "d0": (Role.DECODE, toy_engine(Role.DECODE)),
    }
    config = router_config(doors=DoorsConfig(http_port=0, grpc_port=0, **doors))
    async with cluster(engines, config=config) as each:
        yield each


@pytest.fixture
async def running() -> AsyncIterator[Cluster]:
    async with cluster_of_two() as each:
        yield each


def http(running: Cluster) -> str:
    return f"http://{running.router.http_address}"


def settings_of(
    target: str,
    *,
    how: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
    **what: Any,
) -> LoadSettings:
    """What the command makes of these flags; unless told otherwise, six short requests."""
    if not what.keys() & {"workload", "trace"}:
        pace = {} if "closed_loop" in what else {"rate": 30.0}
        what = {"prompt_tokens": "8", "output_tokens": "4", "requests": 6, **pace, **what}
    names = ("rate", "workload", "length_scale", "trace", "time_scale", "closed_loop", "requests",
             "duration_s", "seed")  # fmt: skip
    texts = ("arrivals", "scenario", "trace_format", "prompt_tokens", "output_tokens")
    defaults = {**dict.fromkeys(names), **dict.fromkeys(texts, "")}
    target_defaults: dict[str, Any] = {
        "model": "",
        "model_path": None,
        "endpoint": Endpoint.COMPLETIONS,
        "concurrency_max": 64,
        "timeout_s": 20.0,
        "pace": None,
        "ignore_eos": True,
        "ca": None,
        "zero_load_ttft": "0.05",
        "slo": "",
    }
    rest: dict[str, Any] = {"outputs": Outputs(), **(more or {})}
    return load_settings(
        target,
        WorkloadArguments(**{**defaults, **what}),
        TargetArguments(**{**target_defaults, **(how or {})}),
        **rest,
    )


async def run(settings: LoadSettings) -> tuple[ExitStatus, str]:
    """The exit status, and all that was printed."""
    screen = Console(file=io.StringIO(), width=1000)
    status = await load(settings, Screens(out=screen, err=screen))
    assert isinstance(screen.file, io.StringIO)
    return status, screen.file.getvalue()


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_a_sweep_has_a_file_per_rate_and_one_page(running: Cluster, tmp_path: Path) -> None:
    outputs = Outputs(html_path=tmp_path / "sweep.html")
    more = {
        "records_path": tmp_path / "run.jsonl",
        "rates_req_s": (20.0, 40.0),
        "outputs": outputs,
    }
    status, said = await run(settings_of(http(running), more=more))
    assert status in MEASURED
    for rate in (20, 40):
        path = tmp_path / f"run-{rate}.jsonl"
        assert [one["outcome"] for one in records_of(path)] == ["finished"] * 6
        meta = json.loads(path.with_name(path.name + ".meta.json").read_bytes())
        assert (meta["settings"]["rate_req_s"], meta["engine"]) == (rate, "emulated")
        assert meta["is_complete"]
    assert "20 req/s" in said
    assert "Over the offered rate" in (tmp_path / "sweep.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("bound", "status", "failures"),
    [("requests==6", ExitStatus.OK, "0"), ("requests<6", ExitStatus.ASSERTION_FAILED, "1")],
)
async def test_assertions_decide_the_status(
    running: Cluster, tmp_path: Path, bound: str, status: ExitStatus, failures: str
) -> None:
    """In a closed loop, which cannot be late."""
    outputs = Outputs(junit_path=tmp_path / "junit.xml", assertions=(parse_assertion(bound),))
    settings = settings_of(http(running), closed_loop=2, more={"outputs": outputs})
    assert (await run(settings))[0] == status
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", failures)


async def test_a_closed_loop_never_has_more_than_its_users(
    running: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    settings = settings_of(
        f"grpc://{running.router.grpc_address}", closed_loop=2, more={"records_path": path}
    )
    status, _ = await run(settings)
    assert status is ExitStatus.OK
    assert (
        "closed"
        in json.loads((tmp_path / "run.jsonl.meta.json").read_text())["settings"][
            "workload_summary"
        ]
    )
    spans = [(one["sent_s"], one["ended_s"]) for one in records_of(path)]
    assert len(spans) == 6
    for at_s, _ in spans:
        assert sum(begin_s <= at_s < end_s for begin_s, end_s in spans) <= 2
    results = json.loads(path.with_name(path.name + ".meta.json").read_bytes())["results"]
    assert results["lateness_s"] is None


async def test_a_trace_is_replayed_row_by_row(running: Cluster, tmp_path: Path) -> None:
    rows = ["arrival_s,input_tokens,output_tokens", "5.0,3,2", "5.1,4,3", "5.3,5,4"]
    (tmp_path / "trace.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    path = tmp_path / "run.jsonl"
    settings = settings_of(
        http(running), trace=tmp_path / "trace.csv", time_scale=2.0, more={"records_path": path}
    )
    assert (await run(settings))[0] in MEASURED
    records = sorted(records_of(path), key=lambda one: float(one["arrival_s"]))
    assert [one["output_tokens"] for one in records] == [2, 3, 4]
    assert [one["arrival_s"] for one in records] == pytest.approx([0.0, 0.05, 0.15])


async def test_a_workload_file_has_tenants_promises_and_tools(
    running: Cluster, tmp_path: Path
) -> None:
    file, path = tmp_path / "workload.toml", tmp_path / "run.jsonl"
    file.write_text(MIX, encoding="utf-8")
    settings = settings_of(http(running), workload=file, more={"records_path": path})
    status, _ = await run(settings)
    assert status in MEASURED
    records = records_of(path)
    assert {one["tenant"] for one in records} == {"acme", "agents"}
    assert all("slo_class" in one for one in records)
    unread = [one for one in records if one.get("has_reader") is False]
    assert unread
    assert not any("reader_idle_s" in one for one in unread)


async def test_two_targets_are_compared(running: Cluster, tmp_path: Path) -> None:
    targets = {"http": http(running), "grpc": f"grpc://{running.router.grpc_address}"}
    settings = settings_of(targets["http"], rate=40.0)
    comparison = CompareSettings(load=settings, targets=targets, blocks=2, records_folder=tmp_path)
    printed = io.StringIO()
    screen = Console(file=printed, width=1000)
    assert await compare_targets(comparison, Screens(out=screen, err=screen)) in MEASURED
    files = ["grpc-1.jsonl", "grpc-2.jsonl", "http-1.jsonl", "http-2.jsonl"]
    arrivals = [
        [one["arrival_s"] for one in sorted(records_of(tmp_path / name), key=str)] for name in files
    ]
    assert sorted(arrivals[0]) == sorted(arrivals[2]) != sorted(arrivals[1])
    assert "ratio" in printed.getvalue()


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
async def test_targets_that_speak_tls(tmp_path: Path, scheme: str) -> None:
    """Trusted by the authority that signed; by another's file, or none, nothing is sent."""
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    certificate, key = ours.issue("router")
    tls = TlsConfig(certificate_file=certificate, key_file=key)
    async with cluster_of_two(tls=tls) as running:
        router = running.router
        target = f"{scheme}://{router.http_address if scheme == 'https' else router.grpc_address}"
        trusted = settings_of(target, how={"ca": Path(ours.file)}, closed_loop=2)
        assert (await run(trusted))[0] is ExitStatus.OK
        foreign = settings_of(target, how={"ca": Path(other.file)}, closed_loop=2)
        assert (await run(foreign))[0] is ExitStatus.FAILED
        missing = settings_of(target, how={"ca": tmp_path / "none.pem"}, closed_loop=2)
        status, said = await run(missing)
    assert status is ExitStatus.FAILED
    assert "authority's file" in said
    assert "No such file" in said


async def test_a_target_that_dies_is_told_from_one_that_is_slow(
    running: Cluster, tmp_path: Path
) -> None:
    """What ran is counted as failed, the run goes on to its end, and the status says it."""
    path = tmp_path / "run.jsonl"
    async with tcp_link(running.router.http_address) as link:
        settings = settings_of(
            f"http://{link.address}", rate=20.0, output_tokens="2000",
            more={"records_path": path},
        )  # fmt: skip
        task = asyncio.create_task(run(settings))
        await wait_until(lambda: bool(running.router.driver.sessions))
        link.cut()
        status, said = await task
    assert status is ExitStatus.TARGET_LOST
    records = records_of(path)
    assert len(records) == 6
    assert {one["cause"] for one in records} == {"connection"}
    meta = json.loads(path.with_name(path.name + ".meta.json").read_bytes())
    assert meta["is_target_lost"] is True
    assert "failed" in said


async def test_a_full_disk_is_said_and_the_run_goes_on(running: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.symlink_to("/dev/full")
    status, said = await run(settings_of(http(running), more={"records_path": path}))
    assert status is ExitStatus.RECORDS_LOST
    assert "No space left" in said
    assert "6 records are lost" in said


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_target_that_is_not_there(scheme: str) -> None:
    """Port 9 of loopback: nobody listens, and connections are refused at once."""
    status, said = await run(settings_of(f"{scheme}://127.0.0.1:9"))
    assert status is ExitStatus.FAILED
    assert "127.0.0.1:9" in said


async def test_a_folder_without_a_tokenizer(running: Cluster, tmp_path: Path) -> None:
    status, said = await run(settings_of(http(running), how={"model_path": tmp_path}))
    assert status is ExitStatus.FAILED
    assert "tokenizer.json" in said
