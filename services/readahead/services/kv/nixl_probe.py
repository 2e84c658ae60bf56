"""Whether NIXL comes up on this machine, found out before an engine relies on it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import structlog

from readahead.services.config import KvConfig

_PROBE = """
from nixl._api import nixl_agent, nixl_agent_config
nixl_agent("probe", nixl_agent_config(backends=["UCX"]))
"""
_PROBE_S_MAX = 60.0
"""Importing NIXL takes torch with it: seconds, and more where several workers start at once."""

_log = structlog.get_logger()


def settled(kv: KvConfig) -> KvConfig:
    """The settings with `auto` decided: gRPC alone where NIXL cannot make an agent here."""
    if kv.backend != "auto" or not (problem := nixl_problem()):
        return kv
    _log.warning("kv_fallback_chosen", backend="grpc", problem=problem)
    return replace(kv, backend="grpc")


def nixl_problem() -> str:
    """Why NIXL cannot be used; "" where it can.

    Asked of a process of its own: an agent's threads would not survive the fork of an engine, and
    its libraries may take the process with them.
    """
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no agent within {_PROBE_S_MAX:g} s"
    if probe.returncode == 0:
        return ""
    return (probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"])[-1]
