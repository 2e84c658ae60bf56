"""Handovers of the emulated engine: leases on KV blocks, and their transfer over loopback TCP.

One line of JSON names the handover, one answers with its size; then come the bytes, then one byte
back, upon which the source frees the blocks. The bytes are dummies, a few per KV block; the time
of the modelled bytes on the modelled link is the puller's to spend.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import RequestId
from readahead.services.engine.engine import LegKey

BLOCK_WIRE_BYTES = 1024
"""Real bytes that stand for one KV block; a block of the modelled engine has two million."""
CHUNK_BYTES = 1 << 16
PULL_S_MAX = 30.0
"""Longest real transfer, connection included; a peer that takes longer is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What the puller must know. Opaque bytes to everybody else."""

    request_id: str
    attempt: int
    source: str
    """host:port of the link server that holds the KV."""
    prompt_tokens: int
    prompt_checksum: int
    """The KV is that of this prompt and no other."""
    wire_bytes: int

    def encode(self) -> bytes:
        return json.dumps({"engine": "emulated", **asdict(self)}).encode()

    @classmethod
    def decode(cls, encoded: bytes) -> Handover:
        """Reads it back.

        Raises:
            ReadaheadError: INVALID_REQUEST; another engine made it, or none.
        """
        try:
            fields = json.loads(encoded)
            if fields.pop("engine") != "emulated":
                raise ValueError("made by another engine")
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReadaheadError(
                Reason.INVALID_REQUEST,
                f"the handover cannot be read: {error}",
                parameter="handover",
            ) from error


@dataclass(slots=True, kw_only=True)
class HeldKv:
    """KV blocks that wait to be pulled."""

    handover: Handover
    blocks: int
    expires_at: float
    """Seconds on the engine's clock."""
    pullers: int = 0
    """Not expired while somebody reads it."""


@dataclass(slots=True)
class Handovers:
    """KV kept for other workers. `give` frees blocks and is called once for each handover."""

    lease_s: float
    now: Callable[[], float]
    give: Callable[[int], None]
    _held: dict[LegKey, HeldKv] = field(default_factory=dict)

    @property
    def blocks(self) -> int:
        """Blocks that they hold."""
        return sum(held.blocks for held in self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def keep(self, handover: Handover, *, blocks: int) -> None:
        """Holds the blocks for one lease."""
        key = (RequestId(handover.request_id), handover.attempt)
        self.release([key])
        self._held[key] = HeldKv(
            handover=handover, blocks=blocks, expires_at=self.now() + self.lease_s
        )

    def get(self, key: LegKey) -> HeldKv | None:
        """The handover, if it is here."""
        return self._held.get(key)

    def renew(self, keys: Iterable[LegKey]) -> list[LegKey]:
        """Extends leases to a full one from now. Returns the keys that are not here."""
        unknown = []
        for key in keys:
            if (held := self._held.get(key)) is None:
                unknown.append(key)
            else:
                held.expires_at = self.now() + self.lease_s
        return unknown

    def release(self, keys: Iterable[LegKey]) -> None:
        """Frees the blocks at once."""
        for key in keys:
            if (held := self._held.pop(key, None)) is not None:
                self.give(held.blocks)

    def take_back(self, key: LegKey) -> int:
        """Ends a handover. Returns its blocks, for whoever computed them; 0 if it is not here."""
        held = self._held.pop(key, None)
        return 0 if held is None else held.blocks

    def expire(self) -> None:
        """Frees those whose lease has run out."""
        now = self.now()
        late = [k for k, held in self._held.items() if held.expires_at <= now and not held.pullers]
        self.release(late)

    def next_expiry(self) -> float | None:
        """When `expire` has something to do, at the earliest."""
        idle = (held.expires_at for held in self._held.values() if not held.pullers)
        return min(idle, default=None)


def _payload(held: Handover) -> Iterable[bytes]:
    """The dummy bytes: the prompt's checksum, repeated."""
    chunk = held.prompt_checksum.to_bytes(4, "little") * (CHUNK_BYTES // 4)
    for start in range(0, held.wire_bytes, CHUNK_BYTES):
        yield chunk[: min(CHUNK_BYTES, held.wire_bytes - start)]


async def serve_pull(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, handovers: Handovers
) -> None:
    """Answers one puller; frees the KV when it says that it has it."""
    try:
        async with asyncio.timeout(PULL_S_MAX):
            request_id, attempt = json.loads(await reader.readline())
            key = (RequestId(request_id), int(attempt))
            held = handovers.get(key)
            size = held.handover.wire_bytes if held is not None else -1
            writer.write(json.dumps({"bytes": size}).encode() + b"\n")
            if held is None:
                await writer.drain()
                return
            held.pullers += 1
            try:
                for chunk in _payload(held.handover):
                    writer.write(chunk)
                    await writer.drain()
                if await reader.readexactly(1) == b"+" and handovers.get(key) is held:
                    handovers.release([key])
            finally:
                held.pullers -= 1
    except (OSError, EOFError, ValueError, TypeError, TimeoutError):
        return  # A puller that fails pulls again, or the lease runs out.
    finally:
        writer.close()


async def pull(handover: Handover) -> None:
    """Moves the KV here and has the source free it.

    Raises:
        ReadaheadError: KV_EXPIRED; the source has gone, does not have it, or sent other bytes.
    """
    host, _, port = handover.source.rpartition(":")
    try:
        async with asyncio.timeout(PULL_S_MAX):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                name = json.dumps([handover.request_id, handover.attempt])
                writer.write(name.encode() + b"\n")
                if json.loads(await reader.readline())["bytes"] != handover.wire_bytes:
                    raise ValueError("the source does not hold it")
                received = 0
                for left in range(handover.wire_bytes, 0, -CHUNK_BYTES):
                    chunk = await reader.readexactly(min(CHUNK_BYTES, left))
                    received = zlib.crc32(chunk, received)
                if received != _wire_checksum(handover):
                    raise ValueError("checksum mismatch")
                writer.write(b"+")
                await writer.drain()
            finally:
                writer.close()
    except (OSError, EOFError, ValueError, TypeError, TimeoutError) as error:
        raise ReadaheadError(Reason.KV_EXPIRED, f"the KV could not be pulled: {error}") from error


def _wire_checksum(handover: Handover) -> int:
    checksum = 0
    for chunk in _payload(handover):
        checksum = zlib.crc32(chunk, checksum)
    return checksum
