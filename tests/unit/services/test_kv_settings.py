"""Settings of the KV transports, and the handovers of the gRPC one."""

from __future__ import annotations

import json

import pytest

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.config import PeerTlsConfig, TlsConfig
from readahead.services.config import KvConfig
from readahead.services.engine import vllm_handover
from readahead.services.kv.grpc_options import connector_options

OWN = TlsConfig(certificate_file="c", key_file="k", client_authority_file="a")


def test_workers_dial_each_other_with_their_own_certificates() -> None:
    """Unless said otherwise, they trust the authority that signs their clients."""
    secured = KvConfig(backend="grpc").secured(OWN)
    assert secured.tls == OWN
    assert secured.peer_tls == PeerTlsConfig(authority_file="a", certificate_file="c", key_file="k")
    peer = PeerTlsConfig(authority_file="b")
    other = TlsConfig(certificate_file="d", key_file="e")
    given = KvConfig(backend="grpc", tls=other, peer_tls=peer)
    assert given.secured(OWN) == given


def test_no_certificate_is_no_tls() -> None:
    """And NIXL has none."""
    for kv in (KvConfig(), KvConfig(backend="grpc")):
        assert kv.secured(TlsConfig()) == kv
    assert KvConfig().secured(OWN) == KvConfig()


def test_peers_that_nobody_vouches_for_are_an_error_at_the_start() -> None:
    """The settings to make are named."""
    with pytest.raises(ValueError, match=r"kv\.peer_tls\.authority_file is needed"):
        KvConfig(backend="grpc").secured(TlsConfig(certificate_file="c", key_file="k"))


def test_unknown_transport_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match=r"kv\.backend must be nixl, grpc or auto, got 'mooncake'"):
        KvConfig(backend="mooncake")


def test_options_are_plain_data() -> None:
    """They go through vLLM's configuration into another process."""
    options = connector_options(KvConfig(backend="grpc", host_bytes=7).secured(OWN))
    assert json.loads(json.dumps(options)) == options
    assert options["readahead"]["host_bytes"] == 7


def handover(**changes: object) -> bytes:
    params = {
        "transport": "grpc",
        "do_remote_prefill": True,
        "remote_engine_id": "e",
        "remote_request_id": "r",
        "remote_host": "h",
        "remote_port": 1,
        "remote_addresses": ["h:1"],
        "remote_block_ids": [[0, 1]],
        "remote_num_tokens": 255,
        "tp_size": 1,
    }
    return vllm_handover.encode(params | changes)


def test_handover_may_hold_less_than_the_prompt() -> None:
    """As of a request that goes on elsewhere; the rest is computed."""
    read = vllm_handover.decode(handover(), prompt_tokens=257, block_tokens=128)
    assert read["remote_num_tokens"] == 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"remote_addresses": []}, "no usable remote_addresses"),
        ({"remote_addresses": [1]}, "no usable remote_addresses"),
        ({"remote_addresses": None}, "no usable remote_addresses"),
        ({"tp_size": 2}, "no usable remote_addresses"),
        ({"remote_block_ids": [[0]]}, "fewer than the prompt's 2 blocks"),
    ],
)
def test_handover_that_would_trip_the_engine_is_refused(
    changes: dict[str, object], message: str
) -> None:
    """Before the engine core sees it."""
    with pytest.raises(ReadaheadError, match=message) as caught:
        vllm_handover.decode(handover(**changes), prompt_tokens=257, block_tokens=128)
    assert caught.value.reason is Reason.INVALID_REQUEST
