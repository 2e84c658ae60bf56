"""The handover between two vLLM engines: the connector's transfer parameters, as JSON.

The gRPC connector gives its own the names that NIXL's have, and adds the transport.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from readahead.core.errors import ReadaheadError, Reason

PREFILL_PARAMS: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
"""What makes an engine keep a prompt's KV for another one."""

_FIELDS: Mapping[str, type] = {
    "do_remote_prefill": bool,
    "remote_engine_id": str,
    "remote_request_id": str,
    "remote_host": str,
    "remote_port": int,
    "remote_block_ids": list,
    "remote_num_tokens": int,
    "tp_size": int,
}


def encode(params: Mapping[str, Any]) -> bytes:
    """The handover for what a prefill engine returned."""
    return json.dumps(params, separators=(",", ":")).encode()


def decode(handover: bytes, *, prompt_tokens: int, block_tokens: int) -> dict[str, Any]:
    """The transfer parameters in a handover.

    A handover that does not fit its prompt would trip an assertion inside the engine core and
    take every other request down with it, so it is refused here.

    Raises:
        ReadaheadError: INVALID_REQUEST; it is not one, or not this prompt's.
    """
    try:
        params = json.loads(handover)
    except ValueError as error:
        raise _invalid("is not JSON") from error
    if not isinstance(params, dict):
        raise _invalid("is not an object")
    for name, kind in _FIELDS.items():
        if not isinstance(params.get(name), kind):
            raise _invalid(f"has no usable {name}")
    groups = params["remote_block_ids"]
    if not all(
        isinstance(group, list) and all(isinstance(each, int) for each in group) for group in groups
    ):
        raise _invalid("has no usable remote_block_ids")
    if params.get("transport") == "grpc":
        _check_addresses(params)
    # The gRPC connector takes what a copy has and computes the rest; NIXL needs all of it.
    tokens = params["remote_num_tokens"] if params.get("transport") == "grpc" else prompt_tokens
    blocks_needed = -(-min(tokens, prompt_tokens) // block_tokens)
    if max(map(len, groups), default=0) < blocks_needed:
        raise _invalid(f"holds fewer than the prompt's {blocks_needed} blocks")
    return params


def _check_addresses(params: Mapping[str, Any]) -> None:
    addresses = params.get("remote_addresses")
    if not (
        isinstance(addresses, list)
        and all(isinstance(each, str) for each in addresses)
        and len(addresses) == params["tp_size"]
    ):
        raise _invalid("has no usable remote_addresses")


def _invalid(what: str) -> ReadaheadError:
    return ReadaheadError(Reason.INVALID_REQUEST, f"The handover {what}.", parameter="handover")
