"""What is settled before vLLM starts."""

from __future__ import annotations

import os
import socket

import pytest

from readahead.services.engine import vllm_environment


def test_operator_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set stays; the rest gets the project's values."""
    for name in vllm_environment._FIXED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    vllm_environment.prepare_environment()
    assert os.environ["OMP_NUM_THREADS"] == "8"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_start_method_survives_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's CPU platform sets it to spawn; whoever asked for another one gets it."""
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    with vllm_environment.start_method_kept():
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "fork"


def test_side_channel_port_is_reserved_for_its_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets the port by chance; a listener that asks for it does."""
    for name in ("VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"):
        monkeypatch.setenv(name, "")
    with vllm_environment.side_channel("127.0.0.1", 0) as port:
        assert os.environ["VLLM_NIXL_SIDE_CHANNEL_PORT"] == str(port)
        with socket.socket() as careless, pytest.raises(OSError, match="in use"):
            careless.bind(("127.0.0.1", port))
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
