"""The supervisor's end of the zygote: a process that imports vLLM once and forks the workers.

`readahead.services.zygote` says what goes down its stdin and comes up its stdout.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from readahead.cli.up.child import Child, ChildDiedError, describe_exit
from readahead.services.config import WorkerConfig


class Zygote:
    """A running zygote."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._imported = asyncio.Event()
        self._logs: dict[str, Path] = {}

    @classmethod
    async def start(cls, *, log: Path, env: Mapping[str, str]) -> Zygote:
        """Starts it; it imports vLLM when the first worker is asked for."""
        argv = [sys.executable, "-m", "readahead.services.zygote"]
        return cls(await Child.start("zygote", argv, log=log, env=env, pipes=True))

    async def fork(self, name: str, *, config: WorkerConfig, log: Path) -> None:
        """Asks for a worker."""
        self._logs[name] = log
        order = {"name": name, "config": dataclasses.asdict(config), "log": str(log)}
        self.child.stdin.write(json.dumps(order).encode() + b"\n")
        await self.child.stdin.drain()

    async def wait_imported(self) -> None:
        """Returns once vLLM is loaded and workers are being forked."""
        await self._imported.wait()

    async def watch(self) -> None:
        """Follows its events until something ends, which is always a failure here.

        Raises:
            ChildDiedError: a worker or the zygote itself has ended.
        """
        async for line in self.child.stdout:
            event = json.loads(line)
            match event["event"]:
                case "imported":
                    self._imported.set()
                case "refused":
                    raise self._died(event["name"], f"was refused: {event['error']}")
                case "exited":
                    raise self._died(event["name"], describe_exit(event["status"]))
        await self.child.watch()

    def _died(self, name: str, how: str) -> ChildDiedError:
        return ChildDiedError(name, how, self._logs.get(name, self.child.log))
