"""Two ends of the gRPC KV transport on loopback, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from readahead.core.errors import ReadaheadError
from readahead.runtime.config import PeerTlsConfig, TlsConfig
from readahead.services.kv.block_memory import BlockMemory
from readahead.services.kv.grpc_sender import Parts
from readahead.services.kv.grpc_source import KvSource
from readahead.services.kv.grpc_target import KvTarget, Progress, Pulling, Source
from readahead.services.kv.grpc_wire import Fingerprint
from readahead.services.kv.host_store import HostStore

BLOCKS = 40
ENGINE = "engine-1"


def make_cache(*, heads: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Three layers of random numbers, in vLLM's layout on a CPU."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"layer{layer}": torch.randn(BLOCKS, heads, 16, 64, generator=generator)
        for layer in range(3)
    }


def fingerprint_of(memory: BlockMemory) -> Fingerprint:
    """Of a one-rank engine with this memory."""
    return Fingerprint(
        engine_version="1",
        model="tiny",
        block_tokens=16,
        block_bytes=memory.block_bytes,
        dtype=memory.dtype,
        layout=memory.layout,
        ranks=1,
        rank=0,
    )


class DamagingSource(KvSource):
    """Damages some of the chunks that it sends, on whichever way."""

    damage: Callable[[int, bytes], bytes] = staticmethod(lambda number, message: message)
    """Gets the chunk's number, counted over all streams."""
    sent = 0

    def _chunks(self, slots: Sequence[int], first: int) -> Iterator[Parts]:
        for message in super()._chunks(slots, first):
            number, self.sent = self.sent, self.sent + 1
            yield [self.damage(number, b"".join(message))]


@dataclass(slots=True, kw_only=True)
class Ends:
    """A source that serves, and a target."""

    cache: dict[str, torch.Tensor]
    memory: BlockMemory
    store: HostStore
    source: DamagingSource
    address: str
    stream_address: str
    target: KvTarget
    received: dict[int, bytes]
    """Blocks by index in the copy."""

    def keep(self, key: str, ids: Sequence[int], *, is_leased: bool = True) -> None:
        """Makes a host copy of blocks of the cache."""
        self.store.save(
            key,
            len(ids),
            lambda slots: self.memory.gather(ids, self.store.rows, slots),
            is_leased=is_leased,
        )

    def take(self, first: int, data: memoryview) -> None:
        """A sink."""
        size = self.memory.block_bytes
        for number, begin in enumerate(range(0, len(data), size)):
            assert first + number not in self.received
            self.received[first + number] = bytes(data[begin : begin + size])

    def pull(
        self, key: str, wanted: Sequence[int], *, engine_id: str = ENGINE
    ) -> tuple[Progress, ReadaheadError | None]:
        """Pulls into `received`."""
        return self.target.pull(self.place(key, engine_id), wanted, self.take, Pulling())

    def place(self, key: str, engine_id: str = ENGINE) -> Source:
        """Where a copy is."""
        return Source(
            address=self.address,
            engine_id=engine_id,
            key=key,
            stream_address=self.stream_address,
        )

    def expected(self, ids: Sequence[int]) -> list[bytes]:
        """What `received` must have for these blocks of the cache."""
        words = [layer.view(torch.uint8).view(BLOCKS, -1) for layer in self.cache.values()]
        return [b"".join(bytes(layer[each].numpy()) for layer in words) for each in ids]


@contextmanager
def two_ends(
    *,
    capacity_blocks: int = BLOCKS,
    lease_s: float = 30.0,
    tls: TlsConfig | None = None,
    peer_tls: PeerTlsConfig | None = None,
    target_differs: dict[str, int | str] | None = None,
) -> Iterator[Ends]:
    """Both ends, until the block is left."""
    cache = make_cache()
    memory = BlockMemory(cache, blocks=BLOCKS)
    mark = fingerprint_of(memory)
    store = HostStore(
        block_bytes=memory.block_bytes,
        bytes_max=capacity_blocks * memory.block_bytes,
        lease_s=lease_s,
    )
    source = DamagingSource(store, mark, engine_id=ENGINE)
    port, stream_port = source.start(host="127.0.0.1", port=0, tls=tls or TlsConfig())
    theirs = replace(mark, **(target_differs or {}))  # type: ignore[arg-type]
    target = KvTarget(theirs, tls=peer_tls or PeerTlsConfig())
    try:
        yield Ends(
            cache=cache,
            memory=memory,
            store=store,
            source=source,
            address=f"127.0.0.1:{port}",
            stream_address=f"127.0.0.1:{stream_port}",
            target=target,
            received={},
        )
    finally:
        target.close()
        source.stop()
