"""`readahead chat`: talk to a cluster from a terminal, with the reading buffer shown."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from readahead.runtime.clock import monotonic_s

if TYPE_CHECKING:
    from readahead.cli.chat_screen import Screen
    from readahead.client import AsyncClient, AsyncStream, GenerateOptions
    from readahead.client.reading import ReadingBuffer

REDRAW_S = 0.1
REPORT_S = 1.0
"""Between two reading reports: five or so tokens, far less than a router plans ahead."""


@dataclass(kw_only=True)
class Conversation:
    """What has been said, and how answers are asked for."""

    model: str
    pace_tok_s: float
    max_tokens: int | None
    temperature: float | None
    slo: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)

    def options(self) -> GenerateOptions:
        """For the next answer."""
        options: GenerateOptions = {"chat": list(self.turns), "pace_tok_s": self.pace_tok_s}
        if self.model:
            options["model"] = self.model
        if self.max_tokens is not None:
            options["max_tokens"] = self.max_tokens
        if self.temperature is not None:
            options["temperature"] = self.temperature
        if self.slo:
            options["slo"] = self.slo
        return options


def chat(
    address: Annotated[str, typer.Argument(help="host:port of a router's gRPC door.")] = (
        "127.0.0.1:50051"
    ),
    *,
    pace: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Tokens per second that you read.")
    ] = 6.0,
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    model: Annotated[str, typer.Option(help="Default: the only one served.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0: greedy.")] = None,
    slo: Annotated[
        str, typer.Option(metavar="CLASS", help="What answers are to be promised, as chatbot.")
    ] = "",
) -> None:
    """Talk to a cluster. Ctrl-C ends an answer; /quit or Ctrl-D ends the talk."""
    conversation = Conversation(
        model=model, pace_tok_s=pace, max_tokens=max_tokens, temperature=temperature, slo=slo
    )
    if system:
        conversation.turns.append({"role": "system", "content": system})
    with asyncio.Runner() as runner:
        client = runner.run(_connect(address))
        try:
            status = _talk(runner, client, conversation)
        finally:
            runner.run(client.close())
    raise typer.Exit(status)


async def _connect(address: str) -> AsyncClient:
    """Ends the program with a clear error unless the router answers."""
    from readahead.client import AsyncClient, ReadaheadClientError

    try:
        client = AsyncClient(address)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        models = await client.models()
    except ReadaheadClientError as error:
        await client.close()
        typer.echo(f"error: {address}: {error.message}", err=True)
        raise typer.Exit(1) from error
    if sys.stdin.isatty():
        names = ", ".join(model.name for model in models) or "no model"
        typer.echo(f"{address} serves {names}. Ctrl-C ends an answer, /quit the talk.")
    return client


def _talk(runner: asyncio.Runner, client: AsyncClient, conversation: Conversation) -> int:
    """Turn by turn until the user leaves; 1 iff an answer failed where nobody could see it."""
    from rich.console import Console

    from readahead.cli.chat_screen import PlainScreen, TerminalScreen

    console = Console()
    is_terminal = console.is_terminal and sys.stdin.isatty()
    status = 0
    for line in _lines("you> " if is_terminal else ""):
        conversation.turns.append({"role": "user", "content": line})
        screen = TerminalScreen(console) if is_terminal else PlainScreen(console)
        error = runner.run(_answer(client, conversation, screen))
        if error:
            typer.echo(f"error: {error}", err=True)
            status = status if is_terminal else 1
    return status


def _lines(prompt: str) -> Iterator[str]:
    """What the user says, without empty lines, until he leaves."""
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (line := input(prompt).strip()) != "/quit":
            if line:
                yield line


async def _answer(client: AsyncClient, conversation: Conversation, screen: Screen) -> str:
    """Shows one answer as it comes and adds it to the conversation; an error's text, or none.

    A cancelled answer stays in the conversation as far as it came; a turn without an answer
    is taken back, because templates want turns to alternate.
    """
    from readahead.client.reading import ReadingBuffer

    buffer = ReadingBuffer(conversation.pace_tok_s, asked_at_s=monotonic_s())
    texts: list[str] = []
    stream = client.generate(**conversation.options())
    with screen, _interrupts(stream.cancel):
        async with asyncio.TaskGroup() as tasks:
            clock = tasks.create_task(_keep_time(stream, screen, buffer))
            error = await _show(stream, screen, buffer, texts)
            clock.cancel()
    if texts:
        conversation.turns.append({"role": "assistant", "content": "".join(texts)})
    else:
        conversation.turns.pop()
    return error


async def _show(
    stream: AsyncStream, screen: Screen, buffer: ReadingBuffer, texts: list[str]
) -> str:
    """The answer's text, to the screen and to `texts`; an error's text, or none."""
    from readahead.client import Delta, Finished, ReadaheadClientError

    is_complete = False
    try:
        async for event in stream:
            if isinstance(event, Delta):
                buffer.deliver(len(event.token_ids), now=monotonic_s())
                texts.append(event.text)
                screen.add(event.text)
                screen.show(buffer, monotonic_s())
            if isinstance(event, Finished):
                is_complete = True
                screen.promised(event)
    except ReadaheadClientError as error:
        return str(error)
    finally:
        now = monotonic_s()
        buffer.end(is_complete=is_complete, now=now)
        screen.show(buffer, now)
    return ""


async def _keep_time(stream: AsyncStream, screen: Screen, buffer: ReadingBuffer) -> None:
    """Redraws the buffer while it drains, and tells the router of it now and then."""
    from readahead.client import ReadaheadClientError

    reported_s = monotonic_s()
    can_report = True
    while True:
        await asyncio.sleep(REDRAW_S)
        now = monotonic_s()
        screen.show(buffer, now)
        if can_report and buffer.tokens_delivered and now - reported_s >= REPORT_S:
            reported_s = now
            try:
                await stream.report_reading(math.ceil(buffer.tokens_read(now)))
            except ReadaheadClientError:  # a report is a hint: the answer goes on without it
                can_report = False


@contextlib.contextmanager
def _interrupts(handler: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C calls the handler."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, handler)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
