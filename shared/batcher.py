"""Write together what arrives together: one statement, one commit, an answer for each.

Group commit: a write takes whatever is waiting, so a quiet system writes one row at once and a
busy one writes hundreds. A row that the database refuses never fails its
neighbours: the batch is bisected until the culprit stands alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from shared.errors import Permanent, Transient

T = TypeVar("T")
R = TypeVar("R")

SPACING: Final = 0.015
LIST_SPACING: Final = 0.005
LONGEST_REST: Final = 0.03
"""Seconds; docs/performance.md has what they gain."""
REST: Final = 1.0
"""How long the rest after a write is, by how long the write took."""


class Saturated(Transient):
    """More is waiting than the batcher may hold: refuse at the door rather than answer late."""


class Batcher(Generic[T, R]):
    """Collects items and gives them to `write` in lists of at most `max_size`, one list at a time;
    up to `max_writes` at a time while the lists are whole.

    `write` returns one result for each item, in their order, or raises for all of them. The first
    item after a quiet time is written at once. Otherwise what arrives is gathered: two writes begin
    at least `spacing` seconds apart, and after each one there is a rest, `rest` times as long as it
    took (at most `LONGEST_REST`), so that on a busy machine fewer and larger writes leave more of
    it for everything else. A whole list waits for no rest.

    What is submitted `in_list` came here in a list: it was gathered where that was made, and only
    `LIST_SPACING` and the rest keep it waiting. It takes along what waits. So each step writes when
    the step before it has written, in one rhythm, rather than at a time of its own.

    What is submitted `ahead` is written before all that is not: where one item leads to another,
    what was begun is finished before more is begun.
    """

    def __init__(
        self,
        write: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        max_size: int,
        max_waiting: int | None = None,
        max_writes: int = 1,
        spacing: float = SPACING,
        rest: float = REST,
    ) -> None:
        self._write = write
        self._max_size = max_size
        self._max_waiting = max_waiting
        self._max_writes = max_writes
        self._spacing = spacing
        self._rest = rest
        self._ahead: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._writes: set[asyncio.Task[None]] = set()
        self._next_at = 0.0
        self._next_list_at = 0.0
        self._has_list = False
        self._next: asyncio.Handle | None = None
        self._due_at = 0.0

    def submit(self, item: T, *, ahead: bool = False, in_list: bool = False) -> asyncio.Future[R]:
        """Have `item` written; the future holds its result or its error. Raises Saturated."""
        if self._max_waiting is not None and self._count() >= self._max_waiting:
            raise Saturated(f"{self._count()} are waiting to be written")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        (self._ahead if ahead else self._waiting).append((item, future))
        self._has_list |= in_list
        self._plan()
        return future

    async def drain(self) -> None:
        """Return when nothing waits and nothing is being written."""
        while self._count() or self._writes:
            if self._next is not None:
                self._next.cancel()
                self._begin()
            if self._writes:
                await asyncio.wait(self._writes)

    def _count(self) -> int:
        return len(self._ahead) + len(self._waiting)

    def _plan(self) -> None:
        """See to it that what waits is written as soon as it may be."""
        is_whole = self._count() >= self._max_size
        if not self._count() or len(self._writes) >= (self._max_writes if is_whole else 1):
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        may_at = now if is_whole else self._next_list_at if self._has_list else self._next_at
        due_at = max(now, may_at)
        if self._next is not None:
            if self._due_at <= due_at:
                return
            self._next.cancel()
        self._due_at = due_at
        if now < due_at:
            self._next = loop.call_at(due_at, self._begin)
        else:
            # Everything that is ready now has its turn to submit before.
            self._next = loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._next = None
        began_at = asyncio.get_running_loop().time()
        size = min(self._count(), self._max_size)
        batch = [(self._ahead or self._waiting).popleft() for _ in range(size)]
        self._has_list = self._has_list and self._count() > 0
        write = asyncio.create_task(self._write_batch(batch))
        self._writes.add(write)
        write.add_done_callback(partial(self._ended, began_at))
        self._plan()

    def _ended(self, began_at: float, write: asyncio.Task[None]) -> None:
        self._writes.discard(write)
        now = asyncio.get_running_loop().time()
        rest = min(self._rest * (now - began_at), LONGEST_REST)
        self._next_at = max(self._next_at, began_at + self._spacing, now + rest)
        list_spacing = min(LIST_SPACING, self._spacing)
        self._next_list_at = max(self._next_list_at, began_at + list_spacing, now + rest)
        self._plan()

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
