"""What running workers hold, by their own word: `Inspect`, and vLLM's metrics; who has joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from up_process import UpProcess, WorkerAddress, http_call
from waiting import wait_until

from readahead.v1 import worker_service_pb2, worker_service_pb2_grpc

INSPECT_S_MAX = 5.0
"""An engine answers between two steps."""
JOIN_S_MAX = 10.0
"""A router reads the records twice a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What one worker's engine holds."""

    running: int
    waiting: int
    handovers_held: int
    blocks_used: int
    transfers_total: int
    """KV caches that it has pulled since its start."""

    @property
    def is_nothing(self) -> bool:
        """No request, no handover, every KV block free."""
        return not (self.running or self.waiting or self.handovers_held or self.blocks_used)


def inspect(workers: Sequence[WorkerAddress]) -> dict[str, Holdings]:
    """Holdings by worker's name, read from the engines now."""
    return {worker.name: _inspect_one(worker.grpc) for worker in workers}


def wait_all_free(workers: Sequence[WorkerAddress], limit_s: float) -> None:
    """Returns once nothing runs, waits or is held anywhere; fails with what is, at the limit."""
    left: dict[str, Holdings] = {}

    def is_free() -> bool:
        nonlocal left
        left = {name: held for name, held in inspect(workers).items() if not held.is_nothing}
        return not left

    try:
        wait_until(is_free, limit_s, what="all engines are free")
    except AssertionError as error:
        error.add_note(f"held: {left}")
        raise


def wait_all_joined(cluster: UpProcess) -> None:
    """Returns once the router uses every worker: without a prefill worker it hands nothing over."""
    wanted = Counter(worker.role for worker in cluster.workers)

    def have_joined() -> bool:
        found = _samples(cluster.http, "readahead_router_workers")
        return {sample.labels["role"]: sample.value for sample in found} == wanted

    wait_until(have_joined, JOIN_S_MAX, what=f"the router uses {dict(wanted)}")


def transfers(workers: Sequence[WorkerAddress]) -> int:
    """KV caches that these workers' engines have pulled."""
    return sum(each.transfers_total for each in inspect(workers).values())


def nixl_transfers(workers: Sequence[WorkerAddress]) -> int:
    """The same by vLLM's own counter on /metrics, which is behind by up to a step."""
    return _sum(workers, "vllm:nixl_xfer_time_seconds_count")


def nixl_failures(workers: Sequence[WorkerAddress]) -> int:
    """KV transfers that failed, by vLLM's own counter."""
    return _sum(workers, "vllm:nixl_num_failed_transfers_total")


def _inspect_one(address: str) -> Holdings:
    with grpc.insecure_channel(address) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        state = stub.Inspect(worker_service_pb2.InspectRequest(), timeout=INSPECT_S_MAX)
    return Holdings(
        running=state.load.running,
        waiting=state.load.waiting,
        handovers_held=state.handovers_held,
        blocks_used=state.kv_blocks - state.load.kv_blocks_free,
        transfers_total=state.transfers_total,
    )


def _samples(address: str, name: str) -> Iterator[Sample]:
    """A metric on a page, one item per set of labels; none where it has no value yet."""
    status, text = http_call(address, "GET", "/metrics")
    assert status == 200
    for family in text_string_to_metric_families(text):
        yield from (sample for sample in family.samples if sample.name == name)


def _sum(workers: Sequence[WorkerAddress], name: str) -> int:
    found = [sample.value for each in workers for sample in _samples(each.metrics, name)]
    assert len(found) >= len(workers), f"{name} is not among the metrics"
    return round(sum(found))
