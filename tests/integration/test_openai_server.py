"""The HTTP door's server: TLS, ports, and its end."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fake_sessions import MODEL, FakeSessions
from http_door import LIMIT_S, RawClient, open_door, post, raw_client

from readahead.router.config import DoorsConfig
from readahead.router.http import server as module
from readahead.runtime.config import TlsConfig

ASK: dict[str, Any] = {"model": MODEL, "prompt": "hi", "stream": True}


def self_signed(folder: Path) -> tuple[str, str]:
    """Files of a certificate for loopback, its own authority, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "door.crt", folder / "door.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(certificate_file), str(key_file)


async def status_over_tls(port: int, context: ssl.SSLContext) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        client = RawClient(reader, writer)
        await client.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        return (await client.answer()).status
    finally:
        writer.transport.abort()


async def test_tls(tmp_path: Path) -> None:
    """With a certificate the door speaks HTTPS."""
    certificate_file, key_file = self_signed(tmp_path)
    tls = TlsConfig(certificate_file=certificate_file, key_file=key_file)
    async with open_door(doors=DoorsConfig(http_port=0, tls=tls)) as door:
        context = ssl.create_default_context(cafile=certificate_file)
        assert await status_over_tls(door.port, context) == 200


async def test_tls_asks_for_a_certificate(tmp_path: Path) -> None:
    """With an authority for clients, one without a certificate is turned away."""
    certificate_file, key_file = self_signed(tmp_path)
    tls = TlsConfig(
        certificate_file=certificate_file,
        key_file=key_file,
        client_authority_file=certificate_file,
    )
    async with open_door(doors=DoorsConfig(http_port=0, tls=tls)) as door:
        context = ssl.create_default_context(cafile=certificate_file)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await status_over_tls(door.port, context)
        context.load_cert_chain(certificate_file, key_file)
        assert await status_over_tls(door.port, context) == 200


async def test_port_is_taken() -> None:
    """A port that another has is an OSError, and nothing is left open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        doors = DoorsConfig(http_port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            async with open_door(doors=doors):
                pass


async def test_stop_cancels_what_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose session goes on is cut at the end of its time, and its session ended."""
    monkeypatch.setattr(module, "CLOSE_S_MAX", 0.05)
    sessions = FakeSessions()
    sessions.script = ("one",)
    async with (
        open_door(sessions) as door,
        raw_client(door) as client,
        raw_client(door) as idle,
    ):
        await client.send(post("/v1/completions", ASK))
        async with asyncio.timeout(LIMIT_S):
            await client.reader.readuntil(b"one")
            door.stop()
            assert b"[DONE]" not in await client.reader.read()
            assert await idle.reader.read() == b""
    assert sessions.last.cancels >= 1
