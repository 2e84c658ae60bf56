"""README's examples, word for word but for the ports, against a real cluster."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from up_process import UpProcess

README = Path(__file__).parents[2] / "README.md"
HTTP, GRPC = "127.0.0.1:8000", "127.0.0.1:50051"
"""Where README says that `make up` listens."""
RUN_S_MAX = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One fenced block."""

    language: str
    code: str


def _examples() -> list[Example]:
    """The blocks of the section that shows how to talk to it."""
    [section] = re.findall(r"^## Talk to it$(.*?)(?=^## )", README.read_text(), re.M | re.S)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S)
    return [Example(language=language, code=code) for language, code in blocks]


def _example(language: str, marker: str) -> Example:
    [found] = [
        example
        for example in _examples()
        if example.language == language and marker in example.code
    ]
    return found


def _run(cluster: UpProcess, example: Example) -> list[str]:
    """What the example writes, one item per write: its output is a pipe that keeps them apart."""
    code = example.code.replace(HTTP, cluster.http).replace(GRPC, cluster.grpc)
    assert code != example.code, f"the example names neither {HTTP} nor {GRPC}"
    program = ["bash", "-euc"] if example.language == "bash" else [sys.executable, "-c"]
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    with os.fdopen(reader, "rb", buffering=0) as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*program, code], stdin=subprocess.DEVNULL, stdout=writer, stderr=errors
        )
        os.close(writer)
        try:
            pieces = [piece.decode() for piece in iter(lambda: output.read(select.PIPE_BUF), b"")]
            process.wait(RUN_S_MAX)
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        assert process.returncode == 0, errors.read().decode()
    return pieces


def test_the_examples_name_the_model_that_is_served(cluster: UpProcess) -> None:
    """And the addresses are those that `make up` takes unless told otherwise."""
    status, models = cluster.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in json.loads(models)["data"]] == [cluster.model]
    named = re.findall(r'"?model"?\s*[:=]\s*"([^"]+)"', "".join(e.code for e in _examples()))
    assert len(named) == 2
    assert set(named) == {cluster.model}


def test_every_example_is_run_here() -> None:
    """A block that is added to the section is added to these tests."""
    assert [example.language for example in _examples()] == ["bash", "python", "python"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_streams_text(cluster: UpProcess) -> None:
    """Server-sent events with text, and the end that OpenAI's clients wait for."""
    pieces = _run(cluster, _example("bash", "curl"))
    frames = re.findall(r"^data: (.*)$", "".join(pieces), re.M)
    assert frames.pop() == "[DONE]"
    deltas = [json.loads(frame)["choices"][0]["delta"] for frame in frames]
    texts = [delta["content"] for delta in deltas if delta.get("content")]
    assert len(texts) > 1
    assert len("".join(texts).split()) > 5
    assert len(pieces) > 1, "it all came at once"


@pytest.mark.parametrize("marker", ["from readahead.client import", "from openai import"])
def test_python_clients_stream_text(cluster: UpProcess, marker: str) -> None:
    """Printed piece by piece while the engine goes on."""
    pieces = _run(cluster, _example("python", marker))
    assert len(pieces) > 1, "it all came at once"
    assert len("".join(pieces).split()) > 5
