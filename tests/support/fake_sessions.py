"""A scripted router behind the front doors: what a test puts in comes out of the door."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import Explanation
from readahead.core.request import FinishReason, RequestId
from readahead.router.sessions import Call, Chunk, Finish, FirstTokenSplit, ServedModel

MODEL = "tiny"

Step = str | FinishReason | ReadaheadError


class FakeSession:
    """Gives its script's steps as chunks, one each; then what `push` adds."""

    def __init__(self, call: Call, script: Sequence[Step]) -> None:
        self.call = call
        self.cancels = 0
        self.cancelled = asyncio.Event()
        self.output_tokens = 0
        self._steps: deque[Step] = deque(script)
        self._news = asyncio.Event()

    @property
    def request_id(self) -> RequestId:
        return self.call.request_id

    @property
    def prompt_tokens(self) -> int:
        return len(self.call.prompt_token_ids)

    def push(self, *steps: Step) -> None:
        """Adds to the script."""
        self._steps.extend(steps)
        self._news.set()

    async def next_chunk(self) -> Chunk:
        """The next step of the script; waits where there is none."""
        while not self._steps:
            self._news.clear()
            await self._news.wait()
        step = self._steps.popleft()
        if isinstance(step, ReadaheadError):
            raise step
        if isinstance(step, FinishReason):
            return Chunk(finish=self._finish(step))
        self.output_tokens += 1
        if len(self._steps) == 1 and isinstance(self._steps[0], FinishReason):
            # The last text and the end come together, as they often do in life.
            reason = self._steps.popleft()
            assert isinstance(reason, FinishReason)
            return Chunk(text=step, token_ids=(7,), finish=self._finish(reason))
        return Chunk(text=step, token_ids=(7,))

    def cancel(self) -> None:
        """Counts. A live request then ends as cancelled."""
        self.cancels += 1
        self.cancelled.set()
        self.push(ReadaheadError(Reason.CANCELLED, "The request was cancelled."))

    def _finish(self, reason: FinishReason) -> Finish:
        return Finish(
            reason=reason,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            first_token=FirstTokenSplit(),
        )


class FakeSessions:
    """Sessions whose answers are scripted.

    Attributes:
        script: of the next session.
        refusals: raised by `open`, one per call, before any session is made.
        opened: every session so far.
        gate: `open` waits for it where it is set.
    """

    def __init__(self) -> None:
        self.script: Sequence[Step] = ("Hello", " world", FinishReason.STOP)
        self.refusals: deque[Exception] = deque()
        self.opened: list[FakeSession] = []
        self.served: tuple[ServedModel, ...] = (
            ServedModel(name=MODEL, context_tokens_max=4096, engine="emulated"),
        )
        self.explanations: dict[str, Explanation] = {}
        self.readings: list[tuple[str, int]] = []
        self.calls = 0
        self.gate: asyncio.Event | None = None
        self._news = asyncio.Event()

    @property
    def last(self) -> FakeSession:
        """The session opened last."""
        return self.opened[-1]

    async def open(self, call: Call) -> FakeSession:
        """Makes a session, or refuses as told."""
        self.calls += 1
        self._news.set()
        if self.refusals:
            raise self.refusals.popleft()
        if self.gate is not None:
            await self.gate.wait()
        if call.model != MODEL:
            raise ReadaheadError(
                Reason.MODEL_NOT_FOUND,
                f"The model '{call.model}' does not exist.",
                parameter="model",
            )
        session = FakeSession(call, self.script)
        self.opened.append(session)
        self._news.set()
        return session

    async def wait_opened(self, count: int = 1) -> FakeSession:
        """Waits for that many sessions; gives the last of them."""
        while len(self.opened) < count:
            self._news.clear()
            await self._news.wait()
        return self.opened[count - 1]

    async def wait_called(self, count: int = 1) -> None:
        """Waits for that many calls of `open`."""
        while self.calls < count:
            self._news.clear()
            await self._news.wait()

    def cancel(self, request_id: RequestId) -> bool:
        """Ends a session by id."""
        for session in self.opened:
            if session.request_id == request_id:
                session.cancel()
                return True
        return False

    def report_reading(self, request_id: RequestId, tokens_read: int) -> bool:
        """Keeps what is reported for known ids."""
        if not any(session.request_id == request_id for session in self.opened):
            return False
        self.readings.append((request_id, tokens_read))
        return True

    def explain(self, request_id: RequestId) -> Explanation | None:
        """As put in by the test."""
        return self.explanations.get(request_id)

    def models(self) -> Sequence[ServedModel]:
        """As put in by the test."""
        return self.served


class FakeTokenizer:
    """One token per character; special tokens are a 1 in front."""

    def __init__(self, chat_template: str | None = "plain") -> None:
        self.chat_template: str | Mapping[str, str] | None = chat_template
        self.model_max_length = 10**30

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Any:
        return _Encoded([1] * add_special_tokens + [min(ord(c), 255) for c in text])

    def __len__(self) -> int:
        return 256

    def get_vocab(self) -> Mapping[str, int]:
        """One character each."""
        return {chr(code): code for code in range(256)}

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> str:
        """`role:content;` for each message."""
        return "".join(f"{m['role']}:{m['content']};" for m in conversation)


class _Encoded:
    def __init__(self, input_ids: list[int]) -> None:
        self.input_ids = input_ids
