"""The notifier's parts without its process, and what its tests do again and again."""

import contextlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from services.api.store.endpoints import (
    delete_webhook_endpoint,
    end_subscription,
    insert_webhook_endpoint,
    update_webhook_endpoint,
)
from services.notifier.attempts import Attempts
from services.notifier.dispatcher import Dispatcher
from services.notifier.handlers import DeliveryHandler, EventHandler
from services.notifier.sender import open_sender
from services.notifier.sweeper import Sweeper
from shared.broker import Delivery, Publisher
from shared.db import Database
from shared.dead_letters import DeadLetters
from shared.event import make_event
from shared.ids import new_id
from shared.messages import EVENTS, Item, encode
from shared.outbox import OutboxRelay
from shared.sealing import Seal
from shared.store import insert_event
from shared.topology import NOTIFIER_DEAD
from tests.receiver import Heard
from tests.system import RETRY_DELAYS, SEALING_KEY, eventually

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
ACCOUNT = "acct_default"
FIVE_DAYS = 432_000.0


class Clock:
    """The time, and as many seconds more as a test likes."""

    def __init__(self) -> None:
        self.shift = 0.0

    def now(self) -> datetime:
        """Wall-clock time."""
        return datetime.now(UTC) + timedelta(seconds=self.shift)

    def monotonic(self) -> float:
        """Monotonic seconds."""
        return time.monotonic() + self.shift


class Notifier:
    """The notifier's parts, without its process."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        attempts: Attempts,
        delays: tuple[float, ...],
        places: int,
        clock: "Clock",
    ) -> None:
        letters = DeadLetters(publisher, NOTIFIER_DEAD)
        self.attempts = attempts
        self.publisher = publisher
        self.relay = attempts.relay
        self.dispatcher = Dispatcher(
            database, attempts, publisher, places=places, backlog_rate=200, clock=clock.monotonic
        )
        self.events = EventHandler(database, self.dispatcher, letters)
        self.due = DeliveryHandler(database, self.dispatcher, publisher, letters, delays)
        self.sweeper = Sweeper(
            database, self.events, self.dispatcher, lost_after=0.0, retry_grace=0.0
        )

    async def tell(self, *items: Item) -> None:
        """Hear of events, and end the attempts that follow."""
        await self.events.handle(message(EVENTS, *items))
        await self.dispatcher.idle()

    async def sweep(self) -> int:
        """Look after what is overdue, and end the attempts that follow."""
        found = await self.sweeper.sweep_once()
        await self.dispatcher.idle()
        return found


@contextlib.asynccontextmanager
async def notifying(
    database: Database,
    amqp: str,
    *,
    timeout: float = 1.0,
    delays: tuple[float, ...] = RETRY_DELAYS,
    places: int = 50,
    clock: Clock | None = None,
) -> AsyncIterator[Notifier]:
    """A notifier's parts for the length of the block."""
    clock = clock or Clock()
    publisher = Publisher(amqp, name="test")
    async with open_sender(
        timeout=timeout, allowed=(ipaddress.ip_network("127.0.0.0/8"),), connections=places
    ) as sender:
        attempts = Attempts(
            database=database,
            relay=OutboxRelay(database, publisher),
            sender=sender,
            seal=Seal([SecretStr(SEALING_KEY)]),
            timeout=timeout,
            delays=delays,
            disable_after=FIVE_DAYS,
            clock=clock.now,
        )
        notifier = Notifier(database, publisher, attempts, delays, places, clock)
        try:
            yield notifier
        finally:
            notifier.dispatcher.stop()  # nothing that is due later is looked for any more
    await publisher.close()


async def subscribe(
    database: Database, url: str, *types: str, custom_headers: dict[str, str] | None = None
) -> str:
    endpoint = await insert_webhook_endpoint(
        database,
        account_id=ACCOUNT,
        id_=new_id("we"),
        url=url,
        enabled_events=list(types) or ["*"],
        description=None,
        metadata="{}",
        secret=SECRET,
        custom_headers=json.dumps(custom_headers) if custom_headers else None,
        custom_header_names=sorted(custom_headers or ()),
    )
    return endpoint.id


async def change(
    database: Database, endpoint: str, *, disabled: bool | None = None, url: str | None = None
) -> None:
    """Disable or enable an endpoint, or move it, as the API does."""
    assert await update_webhook_endpoint(
        database,
        ACCOUNT,
        endpoint,
        url=url,
        description=None,
        metadata=None,
        custom_headers=None,
        custom_header_names=None,
        disabled=disabled,
    )


async def endpoint_row(database: Database, endpoint: str) -> dict[str, Any]:
    """The row of an endpoint."""
    row = await database.fetchrow("SELECT * FROM webhook_endpoints WHERE id = $1", endpoint)
    assert row is not None
    return dict(row)


async def unsubscribe(database: Database, endpoint: str) -> None:
    async with database.transaction() as transaction:
        assert await delete_webhook_endpoint(transaction, ACCOUNT, endpoint)
        await end_subscription(transaction, ACCOUNT, endpoint)


async def happen(database: Database, type_: str = "payment.completed") -> Item:
    """An event, as the processor writes it."""
    event = make_event(ACCOUNT, type_, new_id("pay"), {"id": "x"}, datetime.now(UTC))
    async with database.transaction() as transaction:
        message = await insert_event(transaction, event)
        await transaction.execute("DELETE FROM outbox WHERE id = $1", message.id)
    return Item(ACCOUNT, event.id)


def message(kind: str, *items: Item) -> Delivery:
    return Delivery(encode(kind, items).encode(), {}, redelivered=False)


async def deliveries(database: Database) -> list[dict[str, Any]]:
    return [dict(row) for row in await database.fetch("SELECT * FROM deliveries ORDER BY id")]


async def attempts_of(database: Database) -> list[dict[str, Any]]:
    rows = await database.fetch("SELECT * FROM delivery_attempts ORDER BY delivery_id, number")
    return [dict(row) for row in rows]


def answering(*statuses: int) -> Any:
    """Answer with each status in turn, then with the last."""
    left = list(statuses)

    async def answer(_: Heard) -> web.Response:
        return web.Response(status=left.pop(0) if len(left) > 1 else left[0], text="no\0pe")

    return answer


async def statuses(database: Database) -> list[str]:
    """The state of each delivery."""
    return [delivery["status"] for delivery in await deliveries(database)]


async def until(database: Database, *expected: str) -> None:
    """Wait until the deliveries are in these states."""

    async def reached() -> bool:
        return await statuses(database) == list(expected)

    await eventually(reached)
