"""What every service stands on: the database, and the outbox with its way to the broker."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from shared.broker import Publisher
from shared.config import Settings
from shared.db import Database, open_database
from shared.lifecycle import Lifecycle
from shared.outbox import OutboxRelay
from shared.repeat import Repeating
from shared.schema import require_schema


@dataclass(frozen=True, slots=True)
class Foundation:
    """A database with the schema that this code knows, and a relay at work."""

    database: Database
    relay: OutboxRelay
    publisher: Publisher


@contextlib.asynccontextmanager
async def lay_foundation(
    service: str, settings: Settings, lifecycle: Lifecycle
) -> AsyncIterator[Foundation]:
    """The foundation for the length of the block; then the outbox is flushed and all is closed.

    Waits for Postgres, not for RabbitMQ. Raises DatabaseUnavailable when it waited long enough, and
    Misconfigured for another schema.
    """
    database = await open_database(
        settings.database_url.get_secret_value(),
        service=service,
        size=settings.database_pool,
        wait=settings.start_timeout,
    )
    publisher = Publisher(settings.amqp_url.get_secret_value(), name=service)
    try:
        await require_schema(database)
        relay = OutboxRelay(database, publisher)
        sweeper = Repeating("outbox sweeper", relay.sweep, settings.outbox_sweep_interval)
        async with (
            lifecycle.running(settings.drain_timeout, outbox_relay=relay),
            lifecycle.running(settings.drain_timeout, outbox_sweeper=sweeper),
        ):
            yield Foundation(database, relay, publisher)
    finally:
        await publisher.close()
        await database.close()
