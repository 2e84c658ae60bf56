"""A simulated engine's host memory: copies of KV take their time over a link of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from readahead.core.planning.batch import Batch
from readahead.core.planning.host_memory import HostMemory
from readahead.core.planning.policy import Plan
from readahead.core.planning.sequence import Sequence
from readahead.sim.engine_parts import EngineParts
from readahead.sim.kernel import Kernel
from readahead.sim.links import Network, Transfer

LOOK_S = 0.01
"""While nothing is computed though there is somebody to serve, the planner is asked again this
often: who is parked comes back with time alone. A real engine steps on as well, ten times as
often."""


def host_memory(parts: EngineParts, network: Network) -> HostMemory | None:
    """As large as the parts say; None where there is none."""
    if not parts.host_blocks:
        return None
    block_bytes = parts.limits.block_tokens * network.kv_token_bytes
    return HostMemory(blocks=parts.host_blocks, block_bytes=block_bytes)


class HostCopies:
    """Makes the copies that plans ask for. Those of one direction share the link; iterations go on
    meanwhile, as a GPU copies beside computing."""

    def __init__(
        self,
        batch: Batch,
        parts: EngineParts,
        kernel: Kernel,
        network: Network,
        *,
        changed: Callable[[], None],
    ) -> None:
        """For a batch with host memory. `network` is the cluster's: whoever watches its transfers
        sees these too. `changed` is called when the next plan may be another."""
        assert batch.host is not None
        self._batch = batch
        self._memory = batch.host
        self._kernel = kernel
        self._device = parts.description.worker_id
        self._host = f"{self._device} host"
        self._network = network
        self._link = Network(kernel, parts.host_link, kv_token_bytes=network.kv_token_bytes)
        self._link.watch = self._tell
        self._changed = changed
        self._under_way: dict[Sequence, Transfer] = {}
        self._is_looking = False

    @property
    def bytes(self) -> float:
        """Copied so far or begun to be, in both directions."""
        return self._link.moved_bytes

    def carry_out(self, plan: Plan) -> None:
        """Starts copies and calls others off; sees to it that there is another plan."""
        if plan.copies is not None:
            for sequence in plan.copies.out:
                self._send(sequence, self._device, self._host, self._batch.saved)
            for sequence in plan.copies.back:
                self._send(sequence, self._host, self._device, self._batch.loaded)
            for sequence in plan.copies.off:
                self.stop(sequence)
        batch = self._batch
        if plan.entries or self._is_looking:
            return
        if self._memory.parked or batch.running or batch.waiting:
            self._is_looking = True
            self._kernel.at(self._kernel.now_s + LOOK_S, self._look)

    def stop(self, sequence: Sequence) -> None:
        """Ends a sequence's copy, if one is under way."""
        transfer = self._under_way.pop(sequence, None)
        if transfer is not None:
            self._link.stop(transfer)

    def stop_all(self) -> None:
        """The worker is gone."""
        for sequence in list(self._under_way):
            self.stop(sequence)

    def _send(
        self, sequence: Sequence, source: str, target: str, over: Callable[[Sequence], None]
    ) -> None:
        self._under_way[sequence] = self._link.send(
            source=source,
            target=target,
            size_bytes=float(self._memory.copy_bytes(sequence)),
            landed=partial(self._landed, sequence, over),
        )

    def _landed(self, sequence: Sequence, over: Callable[[Sequence], None]) -> None:
        del self._under_way[sequence]
        over(sequence)
        self._changed()

    def _look(self) -> None:
        self._is_looking = False
        self._changed()

    def _tell(self, *, source: str, target: str, start_s: float, end_s: float) -> None:
        if self._network.watch is not None:
            self._network.watch(source=source, target=target, start_s=start_s, end_s=end_s)
