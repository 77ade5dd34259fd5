"""The load: HTTP/1.1 on keep-alive connections, one request at a time on each.

It writes bytes that were made beforehand and reads no more of an answer than it must, so that it is
not what is measured. Closed: each connection sends when it has its answer, and no more than
`backlog` payments are accepted and undelivered. Open: a request is due at its time, whatever became
of those before it, and its latency counts from then (no coordinated omission).
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol, Self, cast

from bench.tally import Tally

_LENGTH: Final = b"content-length:"
_END: Final = b"\r\n\r\n"
TICK: Final = 0.001
"""Seconds between two looks at what is due."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered with."""

    status: int
    head: bytes
    body: bytes


class Traffic(Protocol):
    """Says what is asked, and reads what is answered."""

    def next(self) -> bytes:
        """The next request, whole."""
        ...

    def id_of(self, answer: Answer) -> str | None:
        """The id of what was newly accepted; None for a repeat."""
        ...


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self, on_answer: Callable[["_Connection", Answer], None]) -> None:
        self._on_answer = on_answer
        self._transport: asyncio.Transport | None = None
        self._read = b""
        self.sent_at = 0.0
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None  # noqa: S101 - it is connected
        self.sent_at = due
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        read = self._read + data if self._read else data
        answer = parse(read)
        if answer is None:
            self._read = read
            return
        self._read = b""
        self._on_answer(self, answer)


def parse(read: bytes) -> Answer | None:
    """An answer, once all of it is there. One that does not say its length has no body."""
    end = read.find(_END)
    if end < 0:
        return None
    head = read[:end]
    lowered = head.lower()
    at = lowered.find(_LENGTH)
    length = int(lowered[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    start = end + len(_END)
    if len(read) < start + length:
        return None
    return Answer(int(head[9:12]), head, read[start : start + length])


class Load:
    """Many clients of one API."""

    def __init__(self, host: str, port: int, traffic: Traffic, tally: Tally) -> None:
        self._address = host, port
        self._traffic = traffic
        self._tally = tally
        self._connections: list[_Connection] = []
        self._idle: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._backlog: int | None = None
        self._sending = False
        self._rested = asyncio.Event()

    @contextlib.asynccontextmanager
    async def connected(self, connections: int) -> AsyncIterator[Self]:
        """Hold so many connections open during the block."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(self._answered), *self._address
            )
            self._connections.append(connection)
            self._idle.append(connection)
        self._tally.on_delivered = self._send_what_may_be
        try:
            yield self
        finally:
            self._tally.on_delivered = None
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._idle.clear()

    async def closed(self, seconds: float, backlog: int | None) -> None:
        """As fast as answers come, with at most `backlog` accepted and undelivered."""
        self._backlog = backlog
        self._sending = True
        self._send_what_may_be()
        await asyncio.sleep(seconds)
        self._sending = False
        await self._rest()

    async def open(self, seconds: float, rate: float) -> None:
        """`rate` requests a second, each when it is due."""
        self._backlog = None
        started = time.monotonic()
        number = 0
        while (now := time.monotonic()) < started + seconds:
            while started + number / rate <= now:
                self._due.append(started + number / rate)
                number += 1
            self._send_what_is_due()
            await asyncio.sleep(TICK)
        while self._due:  # noqa: ASYNC110 - the same clock
            await asyncio.sleep(TICK)
        await self._rest()

    async def _rest(self) -> None:
        """Until every request has its answer."""
        while len(self._idle) < len(self._connections):
            self._rested.clear()
            await self._rested.wait()

    def _answered(self, connection: _Connection, answer: Answer) -> None:
        now = time.monotonic()
        if answer.status < 300:
            id_ = self._traffic.id_of(answer)
            self._tally.accepted(id_, connection.sent_at, now)
        else:
            self._tally.refused(answer.status, now)
        self._idle.append(connection)
        if self._sending:
            self._send_what_may_be()
        elif self._due:
            self._send_what_is_due()
        else:
            self._rested.set()

    def _send_what_may_be(self) -> None:
        if not self._sending:
            return
        now = time.monotonic()
        busy = len(self._connections) - len(self._idle)
        room = len(self._idle)
        if self._backlog is not None:
            room = min(room, self._backlog - self._tally.open - busy)
        for _ in range(room):
            self._idle.popleft().send(self._traffic.next(), now)

    def _send_what_is_due(self) -> None:
        while self._due and self._idle:
            self._idle.popleft().send(self._traffic.next(), self._due.popleft())
