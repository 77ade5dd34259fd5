"""Work that is done again and again until the service ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import random
from typing import Final

import structlog

from shared.backoff import exponential
from shared.errors import Transient

log = structlog.get_logger()

LONGEST_PAUSE: Final = 30.0
REST: Final = 9
"""How many times as long as a piece of work took, the rest after it is."""


class Repeating:
    """Calls `once` every `interval` seconds; less often while it meets Transient errors.

    Work that comes in pieces returns True while there are more: the next is done after a rest that
    leaves nine tenths of the time to what people wait for, and not later than `interval` says.
    """

    def __init__(self, name: str, once: Callable[[], Awaitable[object]], interval: float) -> None:
        self._name = name
        self._once = once
        self._interval = interval
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Repeat until `stop`. Any other error is a bug, and ends it."""
        failures = 0
        while not self._stopping.is_set():
            pause = self._interval
            began_at = time.monotonic()
            try:
                if await self._once() is True:
                    pause = min(pause, REST * (time.monotonic() - began_at))
                failures = 0
            except Transient as error:
                failures += 1
                pause = exponential(
                    failures,
                    base=self._interval,
                    cap=max(LONGEST_PAUSE, self._interval),
                    rand=random(),  # noqa: S311 - jitter
                )
                log.warning("will_look_again", task=self._name, reason=str(error))
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Finish the call under way, then let `run` return."""
        self._stopping.set()
