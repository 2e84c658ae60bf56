"""The system under load: how it is reached, and what it says it is."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from readahead.client import AsyncClient, ReadaheadClientError, Tls
from readahead.client.connection import address_of
from readahead.loadgen.grpc_sender import GrpcSender
from readahead.loadgen.http_sender import HttpSender
from readahead.loadgen.senders import Sender, TargetError

GRPC_SCHEMES = ("grpc://", "grpcs://")
ENGINE_S_MAX = 5.0
"""Longest wait for what the target says of its engine; without an answer the report says so."""


def check_target(target: str) -> None:
    """Raises ValueError unless a sender knows the target's form."""
    if target.startswith(GRPC_SCHEMES):
        address_of(f"grpc://{target.partition('://')[2]}")
    elif not (target.startswith(("http://", "https://")) and urlsplit(target).hostname):
        raise ValueError(
            f"a target is http://…, https://…, grpc:// or grpcs://host:port, got {target!r}"
        )


def sender_for(target: str, *, is_chat: bool, ca_path: Path | None = None) -> Sender:
    """The sender for a target that has been checked."""
    if target.startswith(GRPC_SCHEMES):
        return GrpcSender(target, is_chat=is_chat, ca_file=ca_path)
    return HttpSender(target, is_chat=is_chat, ca_file=ca_path)


def choose_model(served: Sequence[str], wanted: str) -> str:
    """The model to ask for.

    Raises:
        TargetError: it is not served, or there is no telling which is meant.
    """
    if wanted and (wanted in served or not served):
        return wanted
    if wanted:
        raise TargetError(f"no model {wanted!r} is served, but {', '.join(served)}")
    if len(served) == 1:
        return served[0]
    choice = f"serves {', '.join(served)}" if served else "does not say what it serves"
    raise TargetError(f"the target {choice}: choose with --model")


async def engine_of(target: str, model: str, *, ca_path: Path | None = None) -> str | None:
    """What runs the model, in the target's own words; None: it does not say."""
    if target.startswith(GRPC_SCHEMES):
        return await _engine_by_grpc(target, model, ca_path)
    base = target.rstrip("/").removesuffix("/v1")
    limit = aiohttp.ClientTimeout(total=ENGINE_S_MAX)
    try:
        trusted = True if ca_path is None else ssl.create_default_context(cafile=str(ca_path))
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.get(f"{base}/v1/models", ssl=trusted) as response,
        ):
            if response.status != 200:
                return None
            served = (await response.json())["data"]
            found = [one for one in served if one["id"] == model]
            engine = found[0]["readahead"]["engine"] if found else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        return None
    return engine if isinstance(engine, str) else None


async def _engine_by_grpc(target: str, model: str, ca_path: Path | None) -> str | None:
    scheme, _, address = target.partition("://")
    tls = Tls(authority_file=str(ca_path or "")) if scheme == "grpcs" else None
    client = AsyncClient(f"grpc://{address}", tls=tls, call_timeout_s=ENGINE_S_MAX)
    try:
        served = await client.models()
    except ReadaheadClientError:
        return None
    finally:
        await client.close()
    return next((one.engine for one in served if one.name == model), None)
