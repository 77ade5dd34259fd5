"""Reading a queue message by message, by hand: for a person who looks at what was put aside."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from shared.broker.connection import (
    CONNECT_TIMEOUT,
    FAULTS,
    BrokerUnavailable,
    connect,
    hang_up,
    reason_of,
)

MOST_RETURNS: Final = 10
"""Times that a message is given back as it is; then a copy takes its place. RabbitMQ 4 drops a
message that was given back 20 times, where its queue has no limit of its own."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, held until it is taken or given back."""

    body: bytes
    headers: Mapping[str, Any]
    raw: AbstractIncomingMessage


class QueueReader:
    """Holds messages of one queue; those neither taken nor given back return by themselves."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue, depth: int) -> None:
        self._channel = channel
        self._queue = queue
        self.depth = depth
        """Messages that were ready when it was opened."""

    async def get(self) -> Message | None:
        """The next message; None when there is none. Raises BrokerUnavailable."""
        with _translated(self._queue.name):
            async with asyncio.timeout(CONNECT_TIMEOUT):
                raw = await self._queue.get(fail=False)
        return Message(raw.body, raw.headers, raw) if raw is not None else None

    async def take(self, message: Message) -> None:
        """Remove a message from the queue for good."""
        with _translated(self._queue.name):
            await message.raw.ack()

    async def give_back(self, message: Message) -> None:
        """Leave a message in the queue."""
        returns = message.headers.get("x-delivery-count", 0)
        with _translated(self._queue.name):
            if isinstance(returns, int) and returns >= MOST_RETURNS:
                headers = {k: v for k, v in message.headers.items() if not k.startswith("x-")}
                copy = aio_pika.Message(
                    message.body,
                    headers=headers,
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._channel.default_exchange.publish(copy, self._queue.name)
                await message.raw.ack()
            else:
                await message.raw.reject(requeue=True)


@contextlib.contextmanager
def _translated(queue: str) -> Any:
    try:
        yield
    except FAULTS as error:
        raise BrokerUnavailable(f"cannot read {queue}: {reason_of(error)}") from None


@contextlib.asynccontextmanager
async def open_queue(url: str, queue: str) -> AsyncIterator[QueueReader]:
    """The queue, for the length of the block. Raises BrokerUnavailable."""
    connection = await connect(url, name=f"florin reading {queue}")
    try:
        with _translated(queue):
            async with asyncio.timeout(CONNECT_TIMEOUT):
                channel = await connection.channel(publisher_confirms=True)
                found = await channel.declare_queue(queue, passive=True)
        yield QueueReader(channel, found, found.declaration_result.message_count or 0)
    finally:
        await hang_up(connection)
