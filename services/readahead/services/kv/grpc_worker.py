"""The gRPC connector's side in a worker process: owns the host copies and moves blocks."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from readahead.core.errors import ReadaheadError
from readahead.services.kv.block_memory import BlockMemory
from readahead.services.kv.grpc_orders import Books, Door, Load, Save, StepOrders, StepReport
from readahead.services.kv.grpc_settings import GrpcKvSettings
from readahead.services.kv.grpc_source import KvSource
from readahead.services.kv.grpc_target import KvTarget, Pulling, Source
from readahead.services.kv.grpc_wire import Fingerprint
from readahead.services.kv.host_store import HostStore

PULLS_MAX = 4
"""Pulls at once; with a message and a window each it bounds the bytes in flight."""
# Blocks may be copied out of a message that gRPC owns; torch warns of tensors over such memory.
warnings.filterwarnings("ignore", message="The given buffer is not writable")
IDLE_WAIT_S = 0.005
"""Longest time for which an idle engine does not look for commands and requests."""
_COUNTS = ("saved_blocks", "saves_refused", "loaded_blocks", "pull_retries", "bad_chunks")


@dataclass(slots=True, kw_only=True)
class _Results:
    """What threads tell the step. Guarded by the worker's lock."""

    received: set[str] = field(default_factory=set)
    bad_blocks: set[int] = field(default_factory=set)
    report: StepReport = field(default_factory=StepReport)


class GrpcWorker:
    """Called by vLLM's model runner each step; pulls run in threads of its own."""

    def __init__(
        self, settings: GrpcKvSettings, memory: BlockMemory, fingerprint: Fingerprint
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._rank, self._ranks = fingerprint.rank, fingerprint.ranks
        self.store = HostStore(
            block_bytes=memory.block_bytes,
            bytes_max=settings.host_bytes,
            lease_s=settings.lease_s,
        )
        self._source = KvSource(self.store, fingerprint, engine_id=settings.engine_id)
        self._target = KvTarget(fingerprint, tls=settings.peer_tls)
        self._pool = ThreadPoolExecutor(PULLS_MAX, thread_name_prefix="kv-pull")
        # Not the pulls' own pool: a peer that does not answer would hold up a pull from another.
        self._notes = ThreadPoolExecutor(1, thread_name_prefix="kv-note")
        self._pulling: dict[str, Pulling] = {}
        self._lock = threading.Condition()
        self._results = _Results()
        self._is_closed = threading.Event()
        self._reaper = threading.Thread(target=self.store.reap, name="kv-leases", daemon=True)
        self._counts = Counter(dict.fromkeys(_COUNTS, 0))

    def start(self) -> Door:
        """Serves the copies, and says where.

        Raises:
            OSError: the address cannot be had, or a PEM file not read.
        """
        settings = self._settings
        port = settings.port and settings.port + self._rank
        bound, streams = self._source.start(
            host=settings.host,
            port=port,
            tls=settings.tls,
            stream_port=port and port + self._ranks,
        )
        self._reaper.start()
        return Door(
            address=f"{settings.host}:{bound}",
            stream_address=f"{settings.host}:{streams}",
            capacity_blocks=self.store.capacity_blocks,
            block_bytes=self.store.block_bytes,
        )

    def before_forward(self, orders: StepOrders) -> None:
        """Copies what the step may overwrite, then frees what is not wanted any more."""
        for save in orders.saves:
            self._save(save)
        self.store.lease(orders.leases)
        self.store.drop(orders.drops)

    def load(self, orders: StepOrders) -> None:
        """Loads copies of this engine at once, and starts pulls of others'."""
        for request_id in orders.cancels:
            if (pulling := self._pulling.get(request_id)) is not None:
                pulling.cancel()
        for load in orders.loads:
            if load.key:
                self._load(load)
            else:
                pulling = self._pulling[load.request_id] = Pulling()
                self._pool.submit(self._pull, load, load.sources[self._rank], pulling)
        for sources in orders.beats:
            source = sources[self._rank]
            self._notes.submit(self._target.renew, source.address, source.engine_id, [source.key])
        for sources in orders.frees:
            self._free_there(sources[self._rank])

    def take_received(self, *, may_wait: bool = False) -> set[str]:
        """Requests whose load has ended, well or not.

        Args:
            may_wait: the engine has nothing to do before a pull ends. It would look for that each
                millisecond, and take the interpreter from the pull each time.
        """
        with self._lock:
            if may_wait and self._pulling:
                self._lock.wait_for(lambda: self._results.received, IDLE_WAIT_S)
            received, self._results.received = self._results.received, set()
        for request_id in received:
            self._pulling.pop(request_id, None)
        return received

    def take_bad_blocks(self) -> set[int]:
        """Blocks that a load should have brought and did not."""
        with self._lock:
            bad, self._results.bad_blocks = self._results.bad_blocks, set()
            return bad

    def take_report(self) -> StepReport | None:
        """What the scheduler side must learn."""
        with self._lock:
            report, self._results.report = self._results.report, StepReport()
        report.gone.update(self.store.take_gone())
        return report if report.gone or report.transfers or report.failures else None

    def books(self) -> Books:
        """What is here now."""
        with self._lock:
            return Books(copies=self.store.keys(), counts=dict(self._counts))

    def close(self) -> None:
        """Ends threads, the server and the calls. Idempotent."""
        self._is_closed.set()
        self.store.close()
        for pulling in list(self._pulling.values()):
            pulling.cancel()
        self._target.close()
        self._source.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._notes.shutdown(wait=True, cancel_futures=True)

    def _save(self, save: Save) -> None:
        blocks = list(save.block_ids)
        try:
            self.store.save(
                save.key,
                len(blocks),
                lambda slots: self._memory.gather(blocks, self.store.rows, slots),
                is_leased=save.is_leased,
            )
            self._counts["saved_blocks"] += len(blocks)
        except ReadaheadError:
            # Whoever wants it computes it again.
            self._counts["saves_refused"] += 1
            with self._lock:
                self._results.report.gone.add(save.key)

    def _load(self, load: Load) -> None:
        """A parked request comes back: the copy is of no use after that."""
        begin, end = load.first_block, load.first_block + len(load.block_ids)
        try:
            with self.store.reading(load.key) as slots:
                self._memory.scatter(load.block_ids, self.store.rows, slots[begin:end])
        except ReadaheadError as error:
            self._ended(load, list(load.block_ids), error)
        else:
            self._counts["loaded_blocks"] += len(load.block_ids)
            self._ended(load, [], None)
        self.store.drop([load.key])

    def _pull(self, load: Load, source: Source, pulling: Pulling) -> None:
        block_bytes = self.store.block_bytes

        def sink(first: int, data: memoryview) -> None:
            blocks = len(data) // block_bytes
            begin = first - load.first_block
            rows = torch.frombuffer(data, dtype=torch.uint8).view(blocks, block_bytes)
            ids = load.block_ids[begin : begin + blocks]
            self._memory.scatter(ids, rows, range(blocks))

        wanted = range(load.first_block, load.first_block + len(load.block_ids))
        missing = set(wanted)
        error: ReadaheadError | None = None
        try:
            progress, error = self._target.pull(source, wanted, sink, pulling)
            missing = set(progress.missing)
            with self._lock:
                self._counts["pull_retries"] += progress.retries
                self._counts["bad_chunks"] += progress.bad_chunks
                if not missing:
                    self._results.report.transfers += 1
                    self._results.report.transfer_bytes += progress.received_bytes
        finally:
            # Whatever happened: a request that is never reported waits for ever.
            bad = [load.block_ids[each - load.first_block] for each in sorted(missing)]
            self._ended(load, bad, error)
        if not missing:
            self._free_there(source)

    def _ended(self, load: Load, bad_blocks: list[int], error: ReadaheadError | None) -> None:
        with self._lock:
            self._results.received.add(load.request_id)
            self._lock.notify_all()
            self._results.bad_blocks.update(bad_blocks)
            if error is not None:
                self._results.report.failures[load.request_id] = error.reason.value

    def _free_there(self, source: Source) -> None:
        if not self._is_closed.is_set():
            self._notes.submit(self._target.release, source.address, source.engine_id, [source.key])
