"""RabbitMQ at the edge: a publisher with confirms, and consumers that ack what is finished.

Both keep one plain connection and build a new one when it is lost; nothing of an old connection
survives into the new. Neither declares anything: `shared.topology` does, in a deploy step, because
a declare that drifted would make every reconnection fail for ever.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import random
from typing import Any

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.connection import make_url
from aiormq.exceptions import AMQPError

from shared.backoff import exponential
from shared.errors import Transient
from shared.log import without_secrets

log = structlog.get_logger()
# Both report every fault of a connection besides raising it; we say it once, in our own words.
for _name in ("aiormq", "aio_pika"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

CONNECT_TIMEOUT = 5.0
CONFIRM_TIMEOUT = 10.0
HANDLER_FAILURE_PAUSE = 1.0
"""Seconds before a message whose handler failed is given back, so that a bug cannot spin."""
_FAULTS = (AMQPError, OSError, asyncio.TimeoutError, RuntimeError)


class BrokerUnavailable(Transient):
    """RabbitMQ is away, blocked or refused the message; whether it arrived may be unknown."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish: persistent JSON, with a `message_id` of its own for each publish."""

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


async def connect(url: str, *, name: str) -> AbstractConnection:
    """A plain connection named `name` in the management UI. Raises BrokerUnavailable."""
    connection = aio_pika.Connection(
        make_url(url, heartbeat=10), client_properties={"connection_name": name}
    )
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.connect()
            return connection
    except _FAULTS as error:
        await connection.close()  # else its finalizer would, wherever it happens to run
        raise BrokerUnavailable(
            f"no connection to RabbitMQ at {without_secrets(url)}: {_reason(error)}"
        ) from None


class Publisher:
    """Publishes on a connection of its own, made when first needed and again when lost."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._connecting = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether the last connection still stands."""
        return self._channel is not None and not self._channel.is_closed

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish a window of messages and return when the broker has confirmed all of them.

        Raises BrokerUnavailable when any was not confirmed in time; some may have arrived, so the
        caller publishes them all again and consumers take both.
        """
        channel: AbstractChannel | None = None
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                channel = await self._open_channel()
                # Not a TaskGroup: when a connection is lost, confirms that were awaited end as
                # cancelled, which a group takes for done.
                results = await asyncio.gather(
                    *(_publish_one(channel, message) for message in messages),
                    return_exceptions=True,
                )
        except _FAULTS as error:
            await self._forget(channel)
            raise BrokerUnavailable(f"not confirmed by RabbitMQ: {_reason(error)}") from None
        fault = next((result for result in results if isinstance(result, BaseException)), None)
        if fault is not None:
            await self._forget(channel)
            raise BrokerUnavailable(f"not confirmed by RabbitMQ: {_reason(fault)}")

    async def close(self) -> None:
        """Close the connection; the next publish makes a new one."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(*_FAULTS):
                async with asyncio.timeout(2):
                    await connection.close()

    async def _forget(self, channel: AbstractChannel | None) -> None:
        """Close the connection of a channel that failed, unless a newer one has taken its place."""
        if channel is None or channel is self._channel:
            await self.close()

    async def _open_channel(self) -> AbstractChannel:
        async with self._connecting:
            if self._channel is not None and not self._channel.is_closed:
                return self._channel
            await self.close()
            self._connection = await connect(self._url, name=f"florin {self._name} publisher")
            self._channel = await self._connection.channel(
                publisher_confirms=True, on_return_raises=True
            )
            return self._channel


async def _publish_one(channel: AbstractChannel, message: Outgoing) -> None:
    exchange = await channel.get_exchange(message.exchange, ensure=False)
    await exchange.publish(
        aio_pika.Message(
            message.body,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            # Confirms of one id on one channel can be mixed up: unique for each publish.
            message_id=uuid.uuid4().hex,
            headers=dict(message.headers),
        ),
        message.routing_key,
        mandatory=True,
    )


class AckWindow:
    """Which delivery tags of one channel are finished: only a contiguous prefix may be acked.

    An ack of many covers every open tag up to the one it names; were one of them unfinished, a
    crash would lose it.
    """

    def __init__(self) -> None:
        self._finished: dict[int, bool] = {}

    def received(self, tag: int) -> None:
        """A message came; tags rise by one."""
        self._finished[tag] = False

    def finished(self, tag: int) -> None:
        """The message is done with and waits for its ack."""
        self._finished[tag] = True

    def given_back(self, tag: int) -> None:
        """The message was rejected on its own: it must not be acked."""
        del self._finished[tag]

    def take(self) -> int | None:
        """The tag to ack up to, or None when there is nothing to ack. Each is given once."""
        last = None
        for tag, is_finished in self._finished.items():
            if not is_finished:
                break
            last = tag
        if last is not None:
            self._finished = {t: done for t, done in self._finished.items() if t > last}
        return last


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
        """Consume until `stop`, on a new connection whenever the last was lost."""
        failures = 0
        while not self._stopping.is_set():
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
            except _FAULTS as error:
                raise BrokerUnavailable(
                    f"cannot consume {self._queue}: {_reason(error)}; if the queue is missing,"
                    " run `./florin topology`"
                ) from None
            yield lost
            with contextlib.suppress(*_FAULTS):
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    for cancel in consumers:
                        await cancel()
            while self._held and not lost.is_set():
                await asyncio.wait(self._held, timeout=0.5)
        finally:
            with contextlib.suppress(*_FAULTS):
                async with asyncio.timeout(2):
                    await connection.close()

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
                with contextlib.suppress(*_FAULTS):
                    await message.reject(requeue=True)
                window.given_back(tag)
        # One sender at a time, which takes the prefix as it is then: an ack must not overtake one
        # of a lower tag, nor a rejection.
        async with sending:
            up_to = window.take()
            # When the connection is lost, the broker has already given it to somebody else.
            if up_to is not None and not lost.is_set():
                with contextlib.suppress(*_FAULTS):
                    await message.channel.basic_ack(up_to, multiple=True)


async def queue_depth(url: str, queue: str) -> int:
    """Messages ready in `queue`. Asked on a throwaway connection: a passive declare on a channel
    that is kept may be answered from a cache. Raises BrokerUnavailable."""
    connection = await connect(url, name="florin depth probe")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            channel = await connection.channel()
            found = await channel.declare_queue(queue, passive=True)
            return found.declaration_result.message_count or 0
    except _FAULTS as error:
        raise BrokerUnavailable(f"cannot look at {queue}: {_reason(error)}") from None
    finally:
        with contextlib.suppress(*_FAULTS):
            await connection.close()


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
