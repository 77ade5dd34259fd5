"""A connection to RabbitMQ, and its faults as errors that say what to do next."""

import asyncio
import contextlib
import logging
from typing import Final

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.connection import make_url
from aiormq.exceptions import AMQPError

from shared.errors import Transient
from shared.log import without_secrets

# Both report every fault of a connection besides raising it; we say it once, in our own words.
for _name in ("aiormq", "aio_pika"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

CONNECT_TIMEOUT: Final = 5.0
_closing: Final[set[asyncio.Future[None]]] = set()
"""What is being closed: an event loop keeps no task alive."""
FAULTS: Final = (AMQPError, OSError, asyncio.TimeoutError, RuntimeError)
"""What the library raises when a connection or channel is not what it was."""


class BrokerUnavailable(Transient):
    """RabbitMQ is away, blocked or refused the message; whether it arrived may be unknown."""


async def connect(url: str, *, name: str) -> AbstractConnection:
    """A plain connection named `name` in the management UI. Raises BrokerUnavailable."""
    connection = aio_pika.Connection(
        make_url(url, heartbeat=10), client_properties={"connection_name": name}
    )
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.connect()
            return connection
    except (Exception, asyncio.CancelledError) as error:
        await hang_up(connection)
        if isinstance(error, FAULTS):
            raise BrokerUnavailable(
                f"no connection to RabbitMQ at {without_secrets(url)}: {reason_of(error)}"
            ) from None
        raise


async def hang_up(connection: AbstractConnection) -> None:
    """Close a connection, whether or not the broker still answers.

    The first call says goodbye, for two seconds at most; the second forgets a peer that did not
    answer. What is not closed is closed by its finalizer, in whatever thread that happens to run.
    """
    for _ in range(2):
        if not connection.is_closed:
            # A task of its own, which goes on when nobody waits for it any more.
            closing = asyncio.ensure_future(connection.close())
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)
            await asyncio.wait({closing}, timeout=2)
            if not closing.done():
                closing.cancel()
                await asyncio.wait({closing})
            with contextlib.suppress(*FAULTS, asyncio.CancelledError):
                closing.result()


async def queue_depth(url: str, queue: str) -> int:
    """Messages ready in `queue`. Asked on a throwaway connection: a passive declare on a channel
    that is kept may be answered from a cache. Raises BrokerUnavailable."""
    connection = await connect(url, name="florin depth probe")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            channel = await connection.channel()
            found = await channel.declare_queue(queue, passive=True)
            return found.declaration_result.message_count or 0
    except FAULTS as error:
        raise BrokerUnavailable(f"cannot look at {queue}: {reason_of(error)}") from None
    finally:
        await hang_up(connection)


def reason_of(error: BaseException) -> str:
    """What a fault says of itself."""
    return str(error) or type(error).__name__
