"""Write together what arrives together: one statement, one commit, an answer for each.

Group commit: a write takes whatever is waiting, so a quiet system writes one row at once and a
busy one writes hundreds. A row that the database refuses never fails its
neighbours: the batch is bisected until the culprit stands alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property, partial
from typing import Final, Generic, TypeAlias, TypeVar

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


class _Together(Generic[R]):
    """The results of a list, told when all are there."""

    __slots__ = ("_missing", "_results", "future")

    def __init__(self, size: int, future: asyncio.Future[list[R | Exception]]) -> None:
        self.future = future
        self._results: dict[int, R | Exception] = {}
        self._missing = size
        if not size:
            future.set_result([])

    def tell(self, place: int, result: R | Exception) -> None:
        self._results[place] = result
        self._missing -= 1
        if not self._missing:
            self.future.set_result([self._results[n] for n in range(len(self._results))])


class _Part(Generic[R]):
    """What one item of a list comes to."""

    __slots__ = ("_place", "_together")

    def __init__(self, together: _Together[R], place: int) -> None:
        self._together = together
        self._place = place

    def done(self) -> bool:
        return self._together.future.done()

    def set_result(self, result: R) -> None:
        self._together.tell(self._place, result)

    def set_exception(self, error: Exception) -> None:
        self._together.tell(self._place, error)

    def cancel(self) -> None:
        self._together.future.cancel()


_Waiter: TypeAlias = asyncio.Future[R] | _Part[R]


class Batcher(Generic[T, R]):
    """Collects items and gives them to `write` in lists of at most `max_size`, one list at a time;
    up to `max_writes` at a time while the lists are whole.

    `write` returns one result for each item, in their order, or raises for all of them. The first
    item after a quiet time is written at once. Otherwise what arrives is gathered: two writes begin
    at least `spacing` seconds apart, and after each one there is a rest, `rest` times as long as it
    took (at most `LONGEST_REST`), so that on a busy machine fewer and larger writes leave more of
    it for everything else. A whole list waits for no rest.

    What is submitted in a list was gathered where that was made, and only `LIST_SPACING` and the
    rest keep it waiting. It takes along what waits. So each step writes when the step before it has
    written, in one rhythm, rather than at a time of its own.

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
        self._ahead: deque[tuple[T, _Waiter[R]]] = deque()
        self._waiting: deque[tuple[T, _Waiter[R]]] = deque()
        self._writes: set[asyncio.Task[None]] = set()
        self._next_at = 0.0
        self._next_list_at = 0.0
        self._has_list = False
        self._next: asyncio.Handle | None = None
        self._due_at = 0.0

    def submit(self, item: T, *, ahead: bool = False) -> asyncio.Future[R]:
        """Have `item` written; the future holds its result or its error. Raises Saturated."""
        self._require_room()
        future: asyncio.Future[R] = self._loop.create_future()
        (self._ahead if ahead else self._waiting).append((item, future))
        self._plan()
        return future

    def submit_list(self, items: Sequence[T]) -> asyncio.Future[list[R | Exception]]:
        """Have `items` written; the future holds the result or the error of each, in their order,
        when all are there. Raises Saturated.

        It costs one future, and wakes its owner once.
        """
        self._require_room()
        together = _Together[R](len(items), self._loop.create_future())
        self._waiting.extend((item, _Part(together, n)) for n, item in enumerate(items))
        self._has_list |= bool(items)
        self._plan()
        return together.future

    async def drain(self) -> None:
        """Return when nothing waits and nothing is being written."""
        while self._count() or self._writes:
            if self._next is not None:
                self._next.cancel()
                self._begin()
            if self._writes:
                await asyncio.wait(self._writes)

    def _require_room(self) -> None:
        if self._max_waiting is not None and self._count() >= self._max_waiting:
            raise Saturated(f"{self._count()} are waiting to be written")

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # To ask which loop is running is to ask the system which process this is.
        return asyncio.get_running_loop()

    def _count(self) -> int:
        return len(self._ahead) + len(self._waiting)

    def _plan(self) -> None:
        """See to it that what waits is written as soon as it may be."""
        is_whole = self._count() >= self._max_size
        if not self._count() or len(self._writes) >= (self._max_writes if is_whole else 1):
            return
        loop = self._loop
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
        began_at = self._loop.time()
        size = min(self._count(), self._max_size)
        batch = [(self._ahead or self._waiting).popleft() for _ in range(size)]
        self._has_list = self._has_list and self._count() > 0
        write = self._loop.create_task(self._write_batch(batch))
        self._writes.add(write)
        write.add_done_callback(partial(self._ended, began_at))
        self._plan()

    def _ended(self, began_at: float, write: asyncio.Task[None]) -> None:
        self._writes.discard(write)
        now = self._loop.time()
        rest = min(self._rest * (now - began_at), LONGEST_REST)
        self._next_at = max(self._next_at, began_at + self._spacing, now + rest)
        list_spacing = min(LIST_SPACING, self._spacing)
        self._next_list_at = max(self._next_list_at, began_at + list_spacing, now + rest)
        self._plan()

    async def _write_batch(self, batch: list[tuple[T, _Waiter[R]]]) -> None:
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
            for _, waiter in batch:
                waiter.cancel()
            raise
        except Exception as error:
            _settle(batch, error)
        else:
            for (_, waiter), result in zip(batch, results, strict=True):
                if not waiter.done():
                    waiter.set_result(result)


def _settle(batch: list[tuple[T, _Waiter[R]]], error: Exception) -> None:
    for _, waiter in batch:
        if not waiter.done():
            waiter.set_exception(error)
