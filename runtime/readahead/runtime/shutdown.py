"""When to stop: SIGTERM and SIGINT, as an event."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """Sets the event on SIGTERM or SIGINT; a second signal ends the process at once.

    Works in the main thread only, as signals do. The previous handling returns at the exit.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heed(number: signal.Signals) -> None:
        if stop.is_set():
            # Whoever asks twice does not want the drain: die of the signal itself, so that the
            # parent sees which one.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, heed, number)
    try:
        yield stop
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, previous[number])
