"""A router and a worker that trust each other's certificates, and no one else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import FakeEngine
from pem_authority import Authority
from worker_server import running_worker

from readahead.core.errors import ReadaheadError
from readahead.router.links import LinkEars, WorkerLink
from readahead.runtime.config import PeerTlsConfig, TlsConfig

EARS = LinkEars(on_step=lambda _link, _step: None, on_draining=lambda _link: None)


async def test_a_link_opens_over_mutual_tls_and_not_without(tmp_path: Path) -> None:
    """The Steps stream, Describe and Submit all go over the one channel."""
    ours = Authority(tmp_path, "ours")
    certificate, key = ours.issue("worker")
    shown, its_key = ours.issue("router")
    tls = TlsConfig(certificate_file=certificate, key_file=key, client_authority_file=ours.file)
    trusted = PeerTlsConfig(authority_file=ours.file, certificate_file=shown, key_file=its_key)
    async with running_worker(FakeEngine(), worker_id="d0", tls=tls) as worker:
        for peer, is_trusted in ((trusted, True), (PeerTlsConfig(), False)):
            link = WorkerLink(
                worker.identity.address,
                router_id="r",
                silence_s_max=2.0,
                message_bytes_max=1 << 20,
                tls=peer,
                ears=EARS,
            )
            try:
                if is_trusted:
                    assert (await link.open()).worker_id == "d0"
                else:
                    with pytest.raises(ReadaheadError):
                        await link.open()
            finally:
                await link.close()
