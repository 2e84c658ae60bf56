"""Transfers share ports, and no port carries more than it can."""

from __future__ import annotations

import random

import pytest

from readahead.sim.kernel import Kernel
from readahead.sim.links import LINKS, Link, Network

LINK = Link(name="test", bytes_per_s=100.0, latency_s=0.5)


def landings(sends: list[tuple[float, str, str, float]], link: Link = LINK) -> dict[int, float]:
    kernel = Kernel()
    network = Network(kernel, link, kv_token_bytes=1)
    landed: dict[int, float] = {}
    for index, (at_s, source, target, size) in enumerate(sends):

        def send(index: int = index, s: str = source, t: str = target, size: float = size) -> None:
            network.send(
                source=s,
                target=t,
                size_bytes=size,
                landed=lambda: landed.__setitem__(index, kernel.now_s),
            )

        kernel.at(at_s, send)
    kernel.run()
    return landed


def test_alone_it_takes_latency_and_bandwidth() -> None:
    assert landings([(1.0, "a", "b", 200.0)]) == {0: pytest.approx(3.5)}
    assert LINK.alone_s(200.0) == 2.5


def test_two_into_one_port_take_turns_to_the_end() -> None:
    # Both join at 0.5 and share; at 2.5 the small one lands, the large one has 100 left.
    found = landings([(0.0, "a", "c", 100.0), (0.0, "b", "c", 200.0)])
    assert found == {0: pytest.approx(2.5), 1: pytest.approx(3.5)}


def test_other_ports_are_not_touched() -> None:
    found = landings([(0.0, "a", "c", 100.0), (0.0, "b", "d", 100.0)])
    assert found == {0: pytest.approx(1.5), 1: pytest.approx(1.5)}


def test_a_stopped_transfer_never_lands_and_frees_its_share() -> None:
    kernel = Kernel()
    network = Network(kernel, LINK, kv_token_bytes=1)
    landed: list[tuple[str, float]] = []
    first = network.send(
        source="a", target="c", size_bytes=400.0, landed=lambda: landed.append(("a", 0.0))
    )
    network.send(
        source="b",
        target="c",
        size_bytes=100.0,
        landed=lambda: landed.append(("b", kernel.now_s)),
    )
    kernel.at(1.5, lambda: network.stop(first))
    kernel.run()
    assert [name for name, _ in landed] == ["b"]
    assert landed[0][1] == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(20))
def test_bytes_are_conserved_and_no_port_is_overloaded(seed: int) -> None:
    draw = random.Random(seed)
    sends = [
        (draw.uniform(0, 5), draw.choice("ab"), draw.choice("xyz"), draw.uniform(1, 300))
        for _ in range(12)
    ]
    found = landings(sends)
    assert len(found) == len(sends)
    for index, (at_s, _, _, size) in enumerate(sends):
        assert found[index] >= at_s + LINK.alone_s(size) - 1e-9
    for port in (1, 2):
        for name in {send[port] for send in sends}:
            through = [i for i, send in enumerate(sends) if send[port] == name]
            first = min(sends[i][0] for i in through) + LINK.latency_s
            last = max(found[i] for i in through)
            assert sum(sends[i][3] for i in through) <= LINK.bytes_per_s * (last - first) + 1e-6


def test_known_links_move_the_kv_of_2048_tokens_as_measured() -> None:
    """128 KiB per token: 34 ms between A100 nodes, about 1 ms over NVLink."""
    size_bytes = 2048 * 131_072
    assert LINKS["infiniband-a100"].alone_s(size_bytes) == pytest.approx(0.034, rel=0.03)
    assert LINKS["nvlink-h100"].alone_s(size_bytes) < 1e-3
    assert LINKS["ethernet-20g"].alone_s(size_bytes) == pytest.approx(0.117, rel=0.03)
