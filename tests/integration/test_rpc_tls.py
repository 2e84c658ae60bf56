"""Servers with certificates, and channels that check them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from pem_authority import Authority

from readahead.core.errors import Reason
from readahead.runtime.config import PeerTlsConfig, TlsConfig
from readahead.runtime.rpc.channel import channel
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.runtime.rpc.server import bind, grpc_server

LIMIT_S = 10.0


@asynccontextmanager
async def serving(tls: TlsConfig) -> AsyncIterator[str]:
    server = grpc_server(services=[], message_bytes_max=1024)
    port = bind(server, host="127.0.0.1", port=0, tls=tls)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


async def ask(dialled: grpc.aio.Channel) -> int:
    stub = health_pb2_grpc.HealthStub(dialled)
    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
    return int(answer.status)


async def test_a_channel_trusts_its_authority_and_no_other(tmp_path: Path) -> None:
    """A certificate of the named authority passes; another's, or none, does not."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    async with serving(TlsConfig(certificate_file=certificate, key_file=key)) as address:
        async with channel(
            address, message_bytes_max=1024, tls=PeerTlsConfig(authority_file=ours.file)
        ) as trusting:
            assert await ask(trusting) == health_pb2.HealthCheckResponse.NOT_SERVING
        for authority in (theirs.file, ""):
            async with channel(
                address, message_bytes_max=1024, tls=PeerTlsConfig(authority_file=authority)
            ) as dialled:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(dialled)
                assert error_from_rpc(caught.value).reason == Reason.WORKER_LOST


async def test_a_server_with_a_client_authority_asks_for_a_certificate(tmp_path: Path) -> None:
    """Who shows none, or another authority's, is turned away."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    tls = TlsConfig(certificate_file=certificate, key_file=key, client_authority_file=ours.file)
    async with serving(tls) as address:
        for issuer, is_let_in in ((ours, True), (theirs, False), (None, False)):
            credentials = ours.client_credentials(issuer)
            async with grpc.aio.secure_channel(address, credentials) as dialled:
                if is_let_in:
                    await ask(dialled)
                else:
                    with pytest.raises(grpc.aio.AioRpcError):
                        await ask(dialled)


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A wrong path is told before anything listens."""
    missing = str(tmp_path / "nowhere.pem")
    server = grpc_server(services=[], message_bytes_max=1024)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        bind(
            server,
            host="127.0.0.1",
            port=0,
            tls=TlsConfig(certificate_file=missing, key_file=missing),
        )
    await server.stop(grace=None)


async def test_a_channel_shows_its_certificate_and_minds_the_name(tmp_path: Path) -> None:
    """Both sides check each other, and a name may stand for an address."""
    ours = Authority(tmp_path, "ours")
    certificate, key = ours.issue("server")
    tls = TlsConfig(certificate_file=certificate, key_file=key, client_authority_file=ours.file)
    shown, its_key = ours.issue("client")
    async with serving(tls) as address:
        for server_name, is_trusted in (("127.0.0.1", True), ("another.example", False)):
            peer = PeerTlsConfig(
                authority_file=ours.file,
                server_name=server_name,
                certificate_file=shown,
                key_file=its_key,
            )
            async with channel(address, message_bytes_max=1024, tls=peer) as dialled:
                if is_trusted:
                    await ask(dialled)
                else:
                    with pytest.raises(grpc.aio.AioRpcError):
                        await ask(dialled)


def test_settings_that_would_not_encrypt_are_refused() -> None:
    """A certificate or a name without an authority is a mistake, not a preference."""
    with pytest.raises(ValueError, match="authority_file"):
        PeerTlsConfig(server_name="worker")
    with pytest.raises(ValueError, match="go together"):
        PeerTlsConfig(authority_file="a", certificate_file="c")
