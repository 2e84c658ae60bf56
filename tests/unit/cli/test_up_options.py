"""What cannot work is said before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from readahead.cli.up.options import UpOptions, UsageError, free_ports, is_port_free


def _options(**changes: object) -> UpOptions:
    return UpOptions(**({"http_port": 0, "grpc_port": 0} | changes))  # type: ignore[arg-type]


def test_defaults_with_free_ports_are_fine() -> None:
    """Nothing else stands in the way."""
    _options().check()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prefill": 0}, "--prefill"),
        ({"decode": -1}, "--decode"),
        ({"decode": 1000}, "--decode"),
        ({"engine": "llama"}, "--engine"),
        ({"kv": "tcp"}, "--kv"),
        ({"policy": "fastest"}, "--policy"),
        ({"redis": "localhost:6379"}, "--redis"),
        ({"redis": "redis://127.0.0.1:1"}, "--redis"),
        ({"http_port": 70000}, "--http-port"),
        ({"grpc_port": -1}, "--grpc-port"),
        ({"drain_s_max": -1.0}, "--drain-s-max"),
        ({"model": Path("/nowhere")}, "--model"),
    ],
)
def test_bad_options_are_named(changes: dict[str, object], named: str) -> None:
    """The message starts with the option."""
    with pytest.raises(UsageError, match=f"^{named}"):
        _options(**changes).check()


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """It says what is missing."""
    with pytest.raises(UsageError, match=r"config\.json"):
        _options(model=tmp_path).check()


@pytest.mark.parametrize("option", ["http_port", "grpc_port"])
def test_a_port_in_use_is_named_with_its_option(option: str) -> None:
    """Both the port and the way out."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} .*--{option.replace('_', '-')}"):
            _options(**{option: port}).check()


def test_the_same_port_twice_is_refused() -> None:
    """One of the doors would fail later, with a worse message."""
    [port] = free_ports(1)
    with pytest.raises(UsageError, match="both"):
        _options(http_port=port, grpc_port=port).check()


def test_free_ports_are_free_and_different() -> None:
    """They are held together while they are looked for."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_port_free(port) for port in ports)
