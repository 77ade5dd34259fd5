"""Publishing with confirms."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection

from shared.broker.connection import FAULTS, BrokerUnavailable, connect, hang_up, reason_of

CONFIRM_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish: persistent JSON, with a `message_id` of its own for each publish."""

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)


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
        except FAULTS as error:
            await self._forget(channel)
            raise BrokerUnavailable(f"not confirmed by RabbitMQ: {reason_of(error)}") from None
        fault = next((result for result in results if isinstance(result, BaseException)), None)
        if fault is not None:
            await self._forget(channel)
            raise BrokerUnavailable(f"not confirmed by RabbitMQ: {reason_of(fault)}")

    async def close(self) -> None:
        """Close the connection; the next publish makes a new one."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await hang_up(connection)

    async def _forget(self, channel: AbstractChannel | None) -> None:
        """Close the connection of a channel that failed, unless a newer one has taken its place."""
        if channel is not None and channel is self._channel:
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
