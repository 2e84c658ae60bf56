"""The handover between two vLLM engines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from readahead.core.errors import ReadaheadError, Reason
from readahead.services.engine import vllm_handover

PARAMS: dict[str, Any] = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [[3, 4]],
    "remote_engine_id": "af86430e",
    "remote_request_id": "r.1-b2f5a51c",
    "remote_host": "127.0.0.1",
    "remote_port": 37803,
    "tp_size": 1,
    "remote_num_tokens": 129,
    "remote_blocks_expiry_time": None,
}


def decoded(handover: bytes, *, prompt_tokens: int = 129) -> dict[str, Any]:
    return vllm_handover.decode(handover, prompt_tokens=prompt_tokens, block_tokens=128)


def test_handover_comes_back_verbatim() -> None:
    """What a prefill engine returned is what the decode engine gets."""
    assert decoded(vllm_handover.encode(PARAMS)) == PARAMS


@pytest.mark.parametrize("prompt_tokens", [1, 128, 129, 256])
def test_handover_may_hold_more_than_the_prompt(prompt_tokens: int) -> None:
    """Blocks beyond the prompt's are the engine's business."""
    assert decoded(vllm_handover.encode(PARAMS), prompt_tokens=prompt_tokens) == PARAMS


@pytest.mark.parametrize(
    "handover",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        *(json.dumps(PARAMS | {name: None}).encode() for name in vllm_handover._FIELDS),
        json.dumps(PARAMS | {"remote_block_ids": [3, 4]}).encode(),
        json.dumps(PARAMS | {"remote_block_ids": [["3", "4"]]}).encode(),
        json.dumps(PARAMS | {"remote_block_ids": []}).encode(),
        json.dumps(PARAMS | {"remote_block_ids": [[3]]}).encode(),
    ],
)
def test_unfit_handover_is_refused(handover: bytes) -> None:
    """It would kill the engine core: what is no handover, or not this prompt's, ends here."""
    with pytest.raises(ReadaheadError) as caught:
        decoded(handover)
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert caught.value.parameter == "handover"
