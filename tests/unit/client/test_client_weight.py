"""The SDK stays light."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("vllm", "torch", "transformers", "structlog", "pydantic", "typer", "aiohttp", "rich")
OURS = ("core", "runtime", "router", "services", "loadgen", "cli")


def test_importing_the_sdk_pulls_in_nothing_heavy_and_nothing_of_ours() -> None:
    """A fresh interpreter that imports the SDK has loaded only stubs, grpc and protobuf."""
    names = [*HEAVY, *(f"readahead.{name}" for name in OURS)]
    code = f"import sys, readahead.client; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
