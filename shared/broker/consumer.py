"""Consuming: every message in a task of its own, acked when it is finished."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import random
from typing import Any

import structlog
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from shared.backoff import exponential
from shared.broker.acks import AckWindow
from shared.broker.connection import (
    CONNECT_TIMEOUT,
    FAULTS,
    BrokerUnavailable,
    connect,
    hang_up,
    reason_of,
)

log = structlog.get_logger()

HANDLER_FAILURE_PAUSE = 1.0
"""Seconds before a message whose handler failed is given back, so that a bug cannot spin."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as a handler sees it."""

    body: bytes
    headers: Mapping[str, Any]
    redelivered: bool


class Consumer:
    """Reads one queue on `channels` channels of one connection, `prefetch` messages on each.

    `handle` is called in a task of its own for each message and must deal with every fault; when
    it returns, the message is acked. A handler that raises leaves a bug behind: the message is
    rejected back to its queue after a pause, whose delivery limit sends it to the dead queue.
    """

    def __init__(
        self,
        url: str,
        queue: str,
        handle: Callable[[Delivery], Awaitable[None]],
        *,
        name: str,
        channels: int = 1,
        prefetch: int = 10,
    ) -> None:
        self._url = url
        self._queue = queue
        self._handle = handle
        self._name = name
        self._channels = channels
        self._prefetch = prefetch
        self._stopping = asyncio.Event()
        self._held: set[asyncio.Task[None]] = set()
        self._connected = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether messages are being received now."""
        return self._connected.is_set()

    async def wait_connected(self, timeout: float) -> None:
        """Wait until messages are received. Raises BrokerUnavailable after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        except TimeoutError:
            raise BrokerUnavailable(
                f"could not consume {self._queue} within {timeout:g} s"
            ) from None

    async def run(self) -> None:
        """Consume until `stop`, on a new connection whenever the last was lost.

        Cancelled, it cancels what it holds: nothing of it goes on behind its owner's back.
        """
        try:
            await self._run()
        finally:
            for task in self._held:
                task.cancel()
            await asyncio.gather(*self._held, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            await self._wait_for_room()
            if self._stopping.is_set():
                break
            try:
                async with self._session() as lost:
                    failures = 0
                    self._connected.set()
                    log.info("consuming", queue=self._queue)
                    await _first(lost, self._stopping)
                    self._connected.clear()
            except BrokerUnavailable as error:
                failures += 1
                log.warning("waiting_for_rabbitmq", queue=self._queue, reason=str(error))
            finally:
                self._connected.clear()
            if not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    pause = exponential(max(failures, 1), base=0.2, cap=5, rand=random())  # noqa: S311
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
        await self._finish_held()  # what was begun is better finished, connected or not

    async def _wait_for_room(self) -> None:
        """Wait until less is held than one connection may bring, or until `stop`.

        What a lost connection had brought comes again while it is still being worked on: without
        this, connections that are lost again and again would pile it up.
        """
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while len(self._held) >= self._channels * self._prefetch and not stopping.done():
                await asyncio.wait({stopping, *self._held}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    async def _finish_held(self) -> None:
        while self._held:
            await asyncio.wait(self._held)

    def stop(self) -> None:
        """Ask for no more messages, finish and ack those held, then let `run` return."""
        self._stopping.set()

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[asyncio.Event]:
        """Consume on one connection; yields the event that says it is lost."""
        lost = asyncio.Event()
        connection = await connect(self._url, name=f"florin {self._name} {self._queue}")
        connection.close_callbacks.add(lambda *_: lost.set())
        try:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    consumers = [
                        await self._consume(connection, lost) for _ in range(self._channels)
                    ]
            except FAULTS as error:
                raise BrokerUnavailable(
                    f"cannot consume {self._queue}: {reason_of(error)}; if the queue is missing,"
                    " run `./florin topology`"
                ) from None
            yield lost
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    for cancel in consumers:
                        await cancel()
            if self._stopping.is_set():  # the acks of what is held need this connection
                await self._finish_held()
        finally:
            await hang_up(connection)

    async def _consume(
        self, connection: AbstractConnection, lost: asyncio.Event
    ) -> Callable[[], Awaitable[Any]]:
        channel = await connection.channel(publisher_confirms=False)
        channel.close_callbacks.add(lambda *_: lost.set())
        underlay = await channel.get_underlay_channel()
        # When its queue is deleted the consumer ends, and channel and connection stay open.
        underlay.on_consumer_cancel_callbacks.add(lambda *_: lost.set())
        await channel.set_qos(prefetch_count=self._prefetch)
        queue = await channel.get_queue(self._queue, ensure=False)
        window = AckWindow()
        sending = asyncio.Lock()

        async def on_message(message: AbstractIncomingMessage) -> None:
            # The library cancels this when the channel closes; the work must outlive it.
            window.received(message.delivery_tag or 0)
            task = asyncio.create_task(self._deal_with(message, window, sending, lost))
            self._held.add(task)
            task.add_done_callback(self._held.discard)

        tag = await queue.consume(on_message)
        return lambda: queue.cancel(tag)

    async def _deal_with(
        self,
        message: AbstractIncomingMessage,
        window: AckWindow,
        sending: asyncio.Lock,
        lost: asyncio.Event,
    ) -> None:
        tag = message.delivery_tag or 0
        delivery = Delivery(message.body, message.headers, bool(message.redelivered))
        try:
            await self._handle(delivery)
            window.finished(tag)
        except Exception:
            log.exception("handler_failed", queue=self._queue)
            await asyncio.sleep(HANDLER_FAILURE_PAUSE)
            async with sending:
                with contextlib.suppress(*FAULTS):
                    await message.reject(requeue=True)
                window.given_back(tag)
        # One sender at a time, which takes the prefix as it is then: an ack must not overtake one
        # of a lower tag, nor a rejection.
        async with sending:
            up_to = window.take()
            # When the connection is lost, the broker has already given it to somebody else.
            if up_to is not None and not lost.is_set():
                with contextlib.suppress(*FAULTS):
                    await message.channel.basic_ack(up_to, multiple=True)


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
