"""gRPC in NIXL's place: `kv.backend: auto` between real engines, NIXL's ways barred in turn."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from engine_pairs import Pair, answer, books, changed, is_empty, leg, prompt_of, started
from vllm_process import wait_until

from readahead.core.cluster import Role
from readahead.core.errors import Reason
from readahead.core.request import Leg

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(300),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    """Two engines with both transports."""
    async with AsyncExitStack() as engines:
        prefill = await engines.enter_async_context(started("auto", Role.PREFILL))
        decode = await engines.enter_async_context(started("auto", Role.DECODE))
        yield Pair(prefill, decode, Path(os.devnull))


async def is_pulled(pair: Pair, name: str, salt: int, **changes: object) -> dict[str, int]:
    """Hands a prompt over; returns what the target's books have more than before."""
    prompt = prompt_of(700, salt=salt)
    prefilled = await answer(pair.prefill, leg(name, Leg.PREFILL, prompt))
    before = await books(pair.decode)
    request = replace(
        leg(name, Leg.DECODE, prompt), handover=changed(prefilled.end.handover, **changes)
    )
    decoded = await answer(pair.decode, request)
    after = await books(pair.decode)
    whole = await answer(pair.prefill, leg(f"{name}-whole", Leg.WHOLE, prompt))
    assert decoded.token_ids == whole.token_ids
    await wait_until(lambda: is_empty(pair.prefill), limit_s=5)
    await wait_until(lambda: is_empty(pair.decode), limit_s=5)
    more = {key: count - before.get(key, 0) for key, count in after.items()}
    told = ("grpc_fallbacks_total", "transfers_total")
    return {
        key: count
        for key, count in more.items()
        if count and (key in told or key.startswith("failed_"))
    }


async def test_failed_handshake_costs_no_prompt(pair: Pair) -> None:
    """It is pulled over gRPC, with the reason in the books; and so is the next one, at once."""
    own = json.loads((await answer(pair.decode, leg("own", Leg.PREFILL, [7] * 200))).end.handover)
    await pair.decode.release_handovers([leg("own", Leg.PREFILL, [7]).key])
    wrong_door = own["remote_port"]  # the target's own: NIXL finds another engine there
    first = await is_pulled(pair, "first", 31, remote_port=wrong_door)
    assert first["grpc_fallbacks_total"] == first["transfers_total"] == 1
    assert first[f"failed_{Reason.KV_EXPIRED}"] == 1
    second = await is_pulled(pair, "second", 32)
    assert second["grpc_fallbacks_total"] == second["transfers_total"] == 1
    assert not any(key.startswith("failed_") for key in second)


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
async def test_engine_without_nixl_talks_to_those_with_it(
    pair: Pair, role: Role, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """NIXL does not load on one side: it runs gRPC alone, and the other one pulls or is pulled."""
    (tmp_path / "nixl").mkdir()
    (tmp_path / "nixl" / "__init__.py").write_text("raise ImportError('no NIXL here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with started("auto", role) as bare:
        mixed = replace(pair, prefill=bare) if role is Role.PREFILL else replace(pair, decode=bare)
        assert "host_copies" in await books(bare)
        assert bare.description.moves_legs
        assert not pair.prefill.description.moves_legs
        moved = await is_pulled(mixed, f"bare-{role}", 33 if role is Role.PREFILL else 34)
        assert moved["transfers_total"] == 1
        assert "grpc_fallbacks_total" not in moved
