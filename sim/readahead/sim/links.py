"""How long KV takes from one worker to another, while others move theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from readahead.core.config import require
from readahead.sim.kernel import Appointment, Kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What connects workers: each has one port of this bandwidth, in each direction."""

    name: str
    bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        require("bytes_per_s", self.bytes_per_s, least=1)
        require("latency_s", self.latency_s, least=0)

    def alone_s(self, size_bytes: float) -> float:
        """Seconds that a transfer takes which shares its ports with none."""
        return self.latency_s + size_bytes / self.bytes_per_s


LINKS: Mapping[str, Link] = {
    link.name: link
    for link in (
        Link(name="nvlink-a100", bytes_per_s=286e9, latency_s=13e-6),
        Link(name="nvlink-h100", bytes_per_s=358e9, latency_s=8e-6),
        Link(name="pcie4", bytes_per_s=25e9, latency_s=10e-6),
        Link(name="pcie5", bytes_per_s=50e9, latency_s=10e-6),
        Link(name="infiniband-a100", bytes_per_s=7.8e9, latency_s=29e-6),
        Link(name="infiniband-h100", bytes_per_s=36e9, latency_s=19e-6),
        Link(name="ethernet-20g", bytes_per_s=2.3e9, latency_s=50e-6),
    )
}
"""Measured send_recv of Vidur's tables for NVLink and for one NIC between nodes (DGX A100, DGX
H100), and its pairwise boxes over Ethernet; PCIe as commonly reached with 16 lanes. The latencies
of PCIe and Ethernet are of their usual order, not measured."""


class Transfer:
    """KV under way."""

    __slots__ = ("bytes_per_s", "due", "landed", "left_bytes", "ports", "starts_at_s", "updated_s")

    def __init__(
        self, *, ports: tuple[str, str], left_bytes: float, landed: Callable[[], None]
    ) -> None:
        self.ports = ports
        self.left_bytes = left_bytes
        self.landed = landed
        self.bytes_per_s = 0.0
        self.starts_at_s = 0.0
        self.updated_s = 0.0
        self.due: Appointment | None = None


class Landed(Protocol):
    """Who is told of transfers that are over."""

    def __call__(self, *, source: str, target: str, start_s: float, end_s: float) -> None:
        """Times are seconds of virtual time."""
        ...


class Network:
    """All transfers of one cluster.

    A port is shared in equal parts by the transfers that use it, and a transfer goes as fast as
    the slower of its two ports lets it. What it leaves unused at the other port is not given to
    others, so that no port is ever loaded beyond its bandwidth, and a crowd is judged a little
    slower than by max-min fairness.
    """

    def __init__(self, kernel: Kernel, link: Link, *, kv_token_bytes: int) -> None:
        self.kv_token_bytes = kv_token_bytes
        self._kernel = kernel
        self._link = link
        self._ports: dict[str, dict[Transfer, None]] = {}
        self.watch: Landed | None = None
        self.moved_bytes = 0.0
        self.transfers = 0

    def send(
        self, *, source: str, target: str, size_bytes: float, landed: Callable[[], None]
    ) -> Transfer:
        """Starts a transfer; `landed` is called when it is there."""
        transfer = Transfer(
            ports=(f"out:{source}", f"in:{target}"), left_bytes=size_bytes, landed=landed
        )
        self.moved_bytes += size_bytes
        self.transfers += 1
        transfer.starts_at_s = self._kernel.now_s + self._link.latency_s
        transfer.due = self._kernel.at(transfer.starts_at_s, partial(self._join, transfer))
        return transfer

    def stop(self, transfer: Transfer) -> None:
        """Ends a transfer; it never lands."""
        if transfer.due is not None:
            self._kernel.cancel(transfer.due)
            transfer.due = None
        if transfer in self._ports.get(transfer.ports[0], ()):
            self._leave(transfer)

    def _join(self, transfer: Transfer) -> None:
        transfer.updated_s = self._kernel.now_s
        transfer.due = None
        for port in transfer.ports:
            self._ports.setdefault(port, {})[transfer] = None
        self._share(transfer.ports)

    def _leave(self, transfer: Transfer) -> None:
        for port in transfer.ports:
            del self._ports[port][transfer]
        self._share(transfer.ports)

    def _land(self, transfer: Transfer) -> None:
        transfer.due = None
        self._leave(transfer)
        if self.watch is not None:
            self.watch(
                source=transfer.ports[0].removeprefix("out:"),
                target=transfer.ports[1].removeprefix("in:"),
                start_s=transfer.starts_at_s,
                end_s=self._kernel.now_s,
            )
        transfer.landed()

    def _share(self, ports: tuple[str, str]) -> None:
        """Gives everyone at these ports a new share."""
        now_s = self._kernel.now_s
        for transfer in {**self._ports[ports[0]], **self._ports[ports[1]]}:
            crowd = max(len(self._ports[port]) for port in transfer.ports)
            share = self._link.bytes_per_s / crowd
            if transfer.due is not None and share == transfer.bytes_per_s:
                continue
            elapsed_s = now_s - transfer.updated_s
            transfer.left_bytes -= elapsed_s * transfer.bytes_per_s
            transfer.updated_s, transfer.bytes_per_s = now_s, share
            if transfer.due is not None:
                self._kernel.cancel(transfer.due)
            left_s = max(0.0, transfer.left_bytes) / share
            transfer.due = self._kernel.at(now_s + left_s, partial(self._land, transfer))
