"""Whether this process is so late that new work is better refused than answered late.

When requests come faster than they can be read, they wait where nobody can count them: in sockets.
What shows it is the clock: something that was due at a time happens that much later.
"""

import asyncio
import time
from typing import Final

INTERVAL: Final = 0.05
"""Seconds between two looks."""


class Congestion:
    """Refuses while the event loop is more than `limit` seconds behind. Times are monotonic
    seconds."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._due: float | None = None
        self._behind = 0.0
        self._stopping = asyncio.Event()

    def looked(self, now: float) -> None:
        """A look was taken, and the next is due."""
        self._behind = 0.0 if self._due is None else max(0.0, now - self._due)
        self._due = now + INTERVAL

    def refuses(self, now: float) -> bool:
        """Whether what comes in now would be answered late."""
        if self._due is None:
            return False
        return max(self._behind, now - self._due) > self._limit

    async def run(self) -> None:
        """Look, until `stop`."""
        while not self._stopping.is_set():
            self.looked(time.monotonic())
            await asyncio.sleep(INTERVAL)

    def stop(self) -> None:
        """Stop looking: then nothing is refused any more."""
        self._due = None
        self._stopping.set()
