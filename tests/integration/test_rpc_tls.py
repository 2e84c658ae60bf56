"""Servers with certificates, and channels that check them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from readahead.core.errors import Reason
from readahead.runtime.config import TlsConfig
from readahead.runtime.rpc.channel import channel
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.runtime.rpc.server import bind, grpc_server

LIMIT_S = 10.0
START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """Signs certificates for loopback."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = self._write(f"{name}.pem", self._signed(self._name, self._key, is_ca=True))

    def issue(self, name: str) -> tuple[str, str]:
        """Files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        certificate = self._signed(subject, key, is_ca=False)
        return self._write(f"{name}.crt", certificate), self._write(f"{name}.key", pem)

    def client_credentials(self, issuer: Authority | None) -> grpc.ChannelCredentials:
        """Trusts this authority; shows a certificate of the issuer, or none."""
        root = Path(self.file).read_bytes()
        if issuer is None:
            return grpc.ssl_channel_credentials(root)
        certificate, key = issuer.issue("client")
        return grpc.ssl_channel_credentials(
            root, Path(key).read_bytes(), Path(certificate).read_bytes()
        )

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_ca: bool) -> bytes:
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(START)
            .not_valid_after(END)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> str:
        path = self._folder / name
        path.write_bytes(content)
        return str(path)


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
            address, message_bytes_max=1024, tls_authority_file=ours.file
        ) as trusting:
            assert await ask(trusting) == health_pb2.HealthCheckResponse.NOT_SERVING
        for authority in (theirs.file, ""):
            async with channel(
                address, message_bytes_max=1024, tls_authority_file=authority
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
