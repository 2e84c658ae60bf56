"""`readahead chat` against a scripted server on loopback."""

from __future__ import annotations

import io
import re
import signal
import threading
from typing import Any

import grpc
import typer
from fake_inference import (
    LIMIT_S,
    Fail,
    FakeInference,
    Gate,
    answer,
    free_port,
    serving,
    started,
)
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from readahead.cli.chat import chat
from readahead.cli.chat_screen import TerminalScreen, buffer_line
from readahead.client import ReadingBuffer


def talk(address: str, said: str, *options: str) -> Any:
    """Runs `chat` as a pipe does."""
    app = typer.Typer()
    app.command()(chat)
    return CliRunner().invoke(app, [address, *options], input=said)


def roles_and_words(service: FakeInference) -> list[list[tuple[str, str]]]:
    return [
        [(turn.role, turn.content) for turn in request.chat.messages]
        for request in service.requests
    ]


def test_a_conversation_through_a_pipe() -> None:
    """Only the answers are printed; each turn carries the ones before it, and the pace."""
    service = FakeInference(answer("one", " two"), answer("three"))
    with serving(service) as address:
        done = talk(address, "hello\n\nagain\n/quit\nnever\n", "--system", "short", "--pace", "4")
    assert (done.exit_code, done.stdout) == (0, "one two\nthree\n")
    start = [("system", "short"), ("user", "hello")]
    assert roles_and_words(service) == [
        start,
        [*start, ("assistant", "one two"), ("user", "again")],
    ]
    assert service.requests[0].reading.pace_tok_s == 4.0


def test_a_failed_answer_is_reported_and_its_turn_taken_back() -> None:
    """The talk goes on; a pipe learns of the failure by the exit status."""
    wrong = Fail(code=grpc.StatusCode.INVALID_ARGUMENT, reason="CONTEXT_TOO_LONG", message="long")
    service = FakeInference([wrong], answer("fine"))
    with serving(service) as address:
        done = talk(address, "hello\nagain\n")
    assert done.exit_code == 1
    assert "CONTEXT_TOO_LONG: long" in done.stderr
    assert roles_and_words(service)[-1] == [("user", "again")]


def test_ctrl_c_ends_the_answer_and_not_the_talk() -> None:
    """The request is cancelled at the server, and the next line gets its answer."""
    gate = Gate()
    service = FakeInference([started(), gate], answer("fine"))

    def interrupt() -> None:
        gate.reached.wait(LIMIT_S)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with serving(service) as address:
        done = talk(address, "hello\nagain\n")
        service.ended.get(timeout=LIMIT_S)
    thread.join(LIMIT_S)
    assert done.exit_code == 0
    assert done.stdout.endswith("fine\n")


def test_nobody_there_is_said_at_once() -> None:
    """Before anything is asked."""
    done = talk(f"127.0.0.1:{free_port()}", "hello\n")
    assert done.exit_code == 1
    assert "error: 127.0.0.1" in done.stderr
    assert talk("nowhere", "hello\n").exit_code == 2


def test_the_buffer_is_shown() -> None:
    """What is unread, how long it lasts, how long the reader has waited."""
    buffer = ReadingBuffer(5.0, asked_at_s=10.0)
    buffer.deliver(11, now=12.2)
    assert buffer_line(buffer, 12.2) == (
        "11 tokens · 10 unread at 5/s · 2.2 s left to read · 2.0 s waited"
    )


@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=12), max_size=30))
def test_the_terminal_shows_every_word_once(pieces: list[str]) -> None:
    """However the text is cut into frames, and wherever the terminal wraps it."""
    console = Console(file=io.StringIO(), width=10, _environ={})
    with TerminalScreen(console) as screen:
        for piece in pieces:
            screen.add(piece)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().split("\n")
    assert "".join(lines).replace(" ", "") == "".join(pieces).replace(" ", "").replace("\n", "")
    assert all(len(line.rstrip()) <= 10 for line in lines)
    # A word that does not fit a line together with the spaces before it is folded.
    if all(len(word) <= 10 for word in re.findall(r" *[ab]+", "".join(pieces))):
        assert " ".join(lines).split() == "".join(pieces).split()
