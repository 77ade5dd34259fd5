"""Write together what arrives together: one statement, one commit, an answer for each.

Group commit: a write takes whatever is waiting, so a quiet system writes one row at once and a
busy one writes hundreds, without a timer. A row that the database refuses never fails its
neighbours: the batch is bisected until the culprit stands alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

from shared.errors import Permanent, Transient

T = TypeVar("T")
R = TypeVar("R")


class Saturated(Transient):
    """More is waiting than the batcher may hold: refuse at the door rather than answer late."""


class Batcher(Generic[T, R]):
    """Collects items and gives them to `write` in lists of at most `max_size`.

    `write` returns one result for each item, in their order, or raises for all of them. At most
    `max_in_flight` writes run at once.
    """

    def __init__(
        self,
        write: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        max_size: int,
        max_in_flight: int = 2,
        max_waiting: int | None = None,
    ) -> None:
        self._write = write
        self._max_size = max_size
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._writers: set[asyncio.Task[None]] = set()

    def submit(self, item: T) -> asyncio.Future[R]:
        """Have `item` written; the future holds its result or its error. Raises Saturated."""
        if self._max_waiting is not None and len(self._waiting) >= self._max_waiting:
            raise Saturated(f"{len(self._waiting)} are waiting to be written")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._writers) < self._max_in_flight:
            # The task first runs after everything that is ready now has had its turn to submit.
            self._writers.add(asyncio.create_task(self._write_waiting()))
        return future

    async def drain(self) -> None:
        """Return when nothing waits and nothing is being written."""
        while self._writers:
            await asyncio.wait(set(self._writers))

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                size = min(len(self._waiting), self._max_size)
                await self._write_batch([self._waiting.popleft() for _ in range(size)])
        finally:
            # In the same step as the decision to stop: a submit right after it must find room for
            # a new writer.
            self._writers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _write_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._write([item for item, _ in batch])
        except Permanent as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._write_batch(batch[:middle])
                await self._write_batch(batch[middle:])
                return
            _settle(batch, error)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            _settle(batch, error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _settle(batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
