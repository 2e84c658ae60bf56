"""What the doctor finds."""

from __future__ import annotations

import socket
from pathlib import Path

from readahead.cli.doctor import Verdict, examine, findings


def test_a_complete_environment_is_healthy() -> None:
    """The environment that runs the tests has all that is essential."""
    found = list(findings(model=None, ports={}, environ={"READAHEAD_CACHE": "/tmp/x"}))
    assert [finding for finding in found if finding.verdict is Verdict.MISSING] == []
    assert {"Python", "NIXL import", "redis-server", "memory", "cores"} <= {
        finding.subject for finding in found
    }


def test_a_missing_model_is_essential(tmp_path: Path) -> None:
    """Exit code 1, and a remedy."""
    assert examine(model=tmp_path, ports={}) == 1
    [finding] = [
        finding
        for finding in findings(model=tmp_path, ports={}, environ={})
        if finding.verdict is Verdict.MISSING
    ]
    assert finding.remedy


def test_speculation_that_ends_asynchronous_scheduling_is_a_note() -> None:
    """And no word of it where it is not switched on."""
    name = "READAHEAD_WORKER__ENGINE__SPECULATION__METHOD"
    for method, said in (("ngram", 1), ("draft_model", 0), ("", 0)):
        found = list(findings(model=None, ports={}, environ={name: method}))
        notes = [finding for finding in found if finding.subject == "speculation"]
        assert [note.verdict for note in notes] == [Verdict.NOTE] * said


def test_a_port_in_use_is_a_note_with_the_option() -> None:
    """Another port will do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        found = findings(model=None, ports={"gRPC": other.getsockname()[1]}, environ={})
        [finding] = [finding for finding in found if finding.subject == "gRPC port"]
    assert finding.verdict is Verdict.NOTE
    assert "--grpc-port" in finding.remedy
