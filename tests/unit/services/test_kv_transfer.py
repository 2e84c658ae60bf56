"""The gRPC transport of KV blocks between two ends on loopback, with the faults it must survive."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from kv_ends import BLOCKS, Ends, two_ends
from pem_authority import Authority
from tcp_link import tcp_link

from readahead.core.errors import Reason
from readahead.runtime.config import PeerTlsConfig, TlsConfig
from readahead.services.kv import grpc_reader, grpc_source, grpc_target
from readahead.services.kv.grpc_target import TRIES, Pulling
from readahead.services.kv.host_store import Offer

IDS = (7, 3, 30, 31, 32, 0, 39, 12, 11)
NOWHERE = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks in a message, so that a copy is several."""
    monkeypatch.setattr(grpc_source, "CHUNK_BYTES", 2 * 3 * 2 * 16 * 64 * 4 + 100)
    monkeypatch.setattr(grpc_source, "COPY_WAIT_S", 0.05)
    monkeypatch.setattr(grpc_target, "RETRY_S", 0.01)


def blocks(ends: Ends) -> list[bytes]:
    return [ends.received[index] for index in sorted(ends.received)]


@pytest.mark.parametrize("wanted", [range(9), [8], [0, 1, 5, 6, 7]], ids=["all", "last", "some"])
def test_wanted_blocks_arrive_and_no_others(wanted: range | list[int]) -> None:
    """Byte for byte, in as many bytes as they have."""
    with two_ends() as ends:
        ends.keep("a", IDS)
        progress, error = ends.pull("a", wanted)
        assert error is None
        assert sorted(ends.received) == list(wanted)
        assert blocks(ends) == ends.expected([IDS[index] for index in wanted])
        assert progress.received_bytes == len(wanted) * ends.memory.block_bytes


def test_block_larger_than_a_message_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is given on whole."""
    monkeypatch.setattr(grpc_source, "CHUNK_BYTES", 1000)
    with two_ends() as ends:
        ends.keep("a", IDS)
        progress, error = ends.pull("a", range(9))
        assert (error, progress.retries) == (None, 0)
        assert ends.source.sent == 9 * 25
        assert blocks(ends) == ends.expected(IDS)


@pytest.mark.parametrize("chunk_bytes", [1000, 50_000])
def test_damaged_chunk_is_asked_for_again_and_no_other(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    """Blocks that came are not sent twice, but for the parts of the damaged one."""
    monkeypatch.setattr(grpc_source, "CHUNK_BYTES", chunk_bytes)
    with two_ends() as ends:
        ends.keep("a", IDS)
        ends.source.damage = lambda number, message: (
            message[:-5] + bytes([message[-5] ^ 1]) + message[-4:] if number == 2 else message
        )
        progress, error = ends.pull("a", range(9))
        assert error is None
        assert (progress.retries, progress.bad_chunks) == (1, 1)
        assert blocks(ends) == ends.expected(IDS)
        extra = progress.received_bytes - 9 * ends.memory.block_bytes
        assert 0 <= extra < ends.memory.block_bytes


def test_damage_without_end_is_given_up_with_a_reason() -> None:
    """After a bounded number of tries, with what came before it."""
    with two_ends() as ends:
        ends.keep("a", IDS)
        ends.source.damage = lambda number, message: message if number == 0 else message[:-1]
        progress, error = ends.pull("a", range(9))
        assert error is not None
        assert error.reason is Reason.STREAM_BROKEN
        assert progress.bad_chunks == TRIES
        assert progress.missing == list(range(2, 9))
        assert blocks(ends) == ends.expected(IDS[:2])


@pytest.mark.parametrize("has_streams", [True, False])
def test_cut_connection_is_opened_again_for_what_is_missing(has_streams: bool) -> None:
    """Through a proxy that breaks everything once, in the middle; on either way."""

    async def scenario() -> None:
        with two_ends() as ends:
            ends.keep("a", IDS)
            loop = asyncio.get_running_loop()
            name = "stream_address" if has_streams else "address"
            where = replace(ends.place("a"), stream_address="")
            async with tcp_link(getattr(ends, name)) as link:
                cut = threading.Event()

                def sink(first: int, data: memoryview) -> None:
                    ends.take(first, data)
                    if first == 2 and not cut.is_set():
                        cut.set()
                        loop.call_soon_threadsafe(link.cut)
                        loop.call_soon_threadsafe(link.mend)

                # Only what is on its way when the link breaks is lost: have little on its way.
                ends.source.damage = lambda number, message: (
                    message if number < 2 or cut.wait(5) else b""
                )
                source = replace(where, **{name: link.address})
                progress, error = await asyncio.to_thread(
                    ends.target.pull, source, range(9), sink, Pulling()
                )
                assert error is None
                assert progress.retries >= 1
                assert progress.received_bytes == 9 * ends.memory.block_bytes
                assert blocks(ends) == ends.expected(IDS)

    asyncio.run(scenario())


@pytest.mark.parametrize("chunk_bytes", [1000, 50_000])
@pytest.mark.parametrize("has_tls", [False, True])
def test_grpcs_own_library_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chunk_bytes: int, has_tls: bool
) -> None:
    """Where nothing goes wrong: it copies several times as much."""
    monkeypatch.setattr(grpc_source, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(grpc_target.KvTarget, "_try", None)
    tls, peer = TlsConfig(), PeerTlsConfig()
    if has_tls:
        authority = Authority(tmp_path, "ours")
        files = dict(zip(("certificate_file", "key_file"), authority.issue("worker"), strict=True))
        tls = TlsConfig(**files, client_authority_file=authority.file)
        peer = PeerTlsConfig(authority_file=authority.file, **files)
    with two_ends(tls=tls, peer_tls=peer) as ends:
        ends.keep("a", IDS)
        progress, error = ends.pull("a", range(9))
        assert (error, progress.retries, progress.bad_chunks) == (None, 0, 0)
        assert blocks(ends) == ends.expected(IDS)


def test_more_than_a_window_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is given back as messages are read, for the stream and for the connection."""
    monkeypatch.setattr(grpc_target.KvTarget, "_try", None)
    monkeypatch.setattr(grpc_reader, "WINDOW_BYTES", 100_000)
    with two_ends(capacity_blocks=BLOCKS) as ends:
        ends.keep("a", range(BLOCKS))
        progress, error = ends.pull("a", range(BLOCKS))
        assert error is None
        assert progress.received_bytes == BLOCKS * ends.memory.block_bytes > 9 * 100_000
        assert blocks(ends) == ends.expected(range(BLOCKS))


def test_offered_blocks_are_copied_for_whoever_asks() -> None:
    """And the offer is taken once they have been released."""
    with two_ends() as ends:
        fill = partial(ends.memory.gather, IDS, ends.store.rows)
        ends.store.offer("a", Offer(blocks=len(IDS), fill=fill))
        assert ends.pull("a", range(9))[1] is None
        assert blocks(ends) == ends.expected(IDS)
        ends.target.release(ends.address, "engine-1", ["a"])
        assert ends.store.take_taken() == {"a"}
        assert ends.store.free_blocks == ends.store.capacity_blocks


def test_nobody_there_is_a_lost_worker() -> None:
    """Said after a bounded number of tries."""
    with two_ends() as ends:
        nowhere = replace(ends.place("a"), address=NOWHERE, stream_address=NOWHERE)
        _, error = ends.target.pull(nowhere, range(3), ends.take, Pulling())
        assert error is not None
        assert error.reason is Reason.WORKER_LOST


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("protocol", 2, Reason.UNSUPPORTED),
        ("engine_version", "2", Reason.UNSUPPORTED),
        ("model", "other", Reason.MODEL_NOT_FOUND),
        ("block_tokens", 32, Reason.UNSUPPORTED),
        ("block_bytes", 1, Reason.UNSUPPORTED),
        ("dtype", "bfloat16", Reason.UNSUPPORTED),
        ("layout", "3*16x2x64", Reason.UNSUPPORTED),
        ("ranks", 2, Reason.UNSUPPORTED),
        ("rank", 1, Reason.UNSUPPORTED),
    ],
)
def test_other_kind_of_engine_is_refused(field: str, value: int | str, reason: Reason) -> None:
    """At once, with what differs; the copy stays for one that fits."""
    with two_ends(target_differs={field: value}) as ends:
        ends.keep("a", IDS)
        progress, error = ends.pull("a", range(9))
        assert error is not None
        assert (error.reason, error.parameter, progress.retries) == (reason, field, 0)
        assert not ends.received
        assert ends.store.keys() == {"a": 9}


def test_copy_that_is_not_there_is_refused() -> None:
    """Never made, released, of the engine before a restart, or shorter than asked for."""
    with two_ends() as ends:
        ends.keep("a", IDS)
        ends.target.release(ends.address, "another", ["a"])
        answers = [
            ends.pull("never", range(9)),
            ends.pull("a", range(9), engine_id="before"),
            ends.pull("a", range(10)),
        ]
        ends.target.release(ends.address, "engine-1", ["a"])
        answers.append(ends.pull("a", range(9)))
        reasons = [error.reason for _, error in answers if error is not None]
        expired = Reason.KV_EXPIRED
        assert reasons == [expired, expired, Reason.INVALID_REQUEST, expired]
        assert ends.store.free_blocks == ends.store.capacity_blocks


def test_pull_may_come_before_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The router may be faster than the engine's next step."""
    monkeypatch.setattr(grpc_source, "COPY_WAIT_S", 5.0)
    with two_ends() as ends:
        asked = threading.Event()
        check = ends.source._check_engine

        def checked(engine_id: str) -> None:
            check(engine_id)
            asked.set()

        monkeypatch.setattr(ends.source, "_check_engine", checked)

        def keep_late() -> None:
            assert asked.wait(5)
            ends.keep("a", IDS)

        threading.Thread(target=keep_late).start()
        assert ends.pull("a", range(9))[1] is None
        assert blocks(ends) == ends.expected(IDS)


def test_cancelled_pull_ends_and_leaves_the_copy() -> None:
    """From another thread, in the middle of the stream."""
    with two_ends() as ends:
        ends.keep("a", IDS)
        pulling = Pulling()

        def sink(first: int, data: memoryview) -> None:
            ends.take(first, data)
            pulling.cancel()

        _, error = ends.target.pull(ends.place("a"), range(9), sink, pulling)
        assert error is not None
        assert error.reason is Reason.CANCELLED
        assert len(ends.received) < 9
        assert ends.store.keys() == {"a": 9}


def test_tls_is_that_of_every_other_channel(tmp_path: Path) -> None:
    """A peer with a certificate of the cluster's authority can pull, and no other."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("worker")
    tls = TlsConfig(certificate_file=certificate, key_file=key, client_authority_file=ours.file)
    stranger = theirs.issue("stranger")
    for peer, is_let_in in (
        (PeerTlsConfig(authority_file=ours.file, certificate_file=certificate, key_file=key), True),
        (PeerTlsConfig(authority_file=ours.file), False),
        (
            PeerTlsConfig(
                authority_file=ours.file, certificate_file=stranger[0], key_file=stranger[1]
            ),
            False,
        ),
        (PeerTlsConfig(authority_file=theirs.file), False),
        (PeerTlsConfig(), False),
    ):
        with two_ends(tls=tls, peer_tls=peer) as ends:
            ends.keep("a", IDS)
            _, error = ends.pull("a", range(9))
            assert (error is None) == is_let_in
            assert bool(ends.received) == is_let_in


def test_fast_port_that_cannot_be_reached_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's library brings it at once, and the port is not knocked at again for a while."""
    knocks: list[str] = []
    stream = grpc_reader.MessageStream

    def knock(address: str, **more: object) -> object:
        knocks.append(address)
        return stream(address, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(grpc_target, "MessageStream", knock)
    with two_ends() as ends:
        ends.keep("a", IDS)
        source = replace(ends.place("a"), stream_address=NOWHERE)
        for _ in range(2):
            progress, error = ends.target.pull(source, range(9), ends.take, Pulling())
            assert (error, progress.retries) == (None, 0)
            assert blocks(ends) == ends.expected(IDS)
            ends.received.clear()
        assert knocks == [NOWHERE]


def test_messages_are_received_into_memory_that_was_used_before() -> None:
    """One pull after the other takes no more of it than the first."""
    with two_ends() as ends:
        ends.keep("a", IDS)
        taken = []
        for _ in range(3):
            assert ends.pull("a", range(9))[1] is None
            assert blocks(ends) == ends.expected(IDS)
            ends.received.clear()
            taken.append({id(each) for each in ends.target._buffers._free})
        assert len(taken[0]) == 1
        assert taken[0] == taken[1] == taken[2]
