"""Updates on the way of a payment stay in their page: no index hears of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from services.notifier.policy import Delivered, Result
from services.notifier.store.attempts import Finished, record_attempts
from services.notifier.store.opening import open_deliveries
from services.processor.gateways.base import Approved
from services.processor.settlement import Answer, Move
from services.processor.work import PAYMENT_WORK, REFUND_WORK
from shared.broker import Publisher
from shared.db import Connection, Database, Row
from shared.messages import Item
from tests.settling import accept, make_reserver, new_refund
from tests.telling import deliveries, happen, subscribe

LIST = 200
"""Rows that are written together, and updated together: many pages full."""


class Counting(Database):
    """A database that counts the updates of a table, and those that stayed heap-only."""

    def __init__(self, database: Database, table: str) -> None:
        self._database = database
        self._table = table
        self.updates = 0
        self.heap_only = 0

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        async with self._counted() as transaction:
            return await transaction.fetch(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        async with self._counted() as transaction:
            return await transaction.execute(sql, *args)

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[Connection]:
        async with self._database.transaction() as transaction:
            before = await self._counts(transaction)
            yield transaction
            after = await self._counts(transaction)
        self.updates += after[0] - before[0]
        self.heap_only += after[1] - before[1]

    async def _counts(self, connection: Connection) -> tuple[int, int]:
        # Of this connection, and not told to others yet: Postgres 15 does not begin anew with each
        # transaction.
        row = await connection.fetchrow(
            """
            SELECT pg_stat_get_xact_tuples_updated(oid) AS updates,
                   pg_stat_get_xact_tuples_hot_updated(oid) AS heap_only
              FROM pg_class WHERE oid = $1::text::regclass
            """,
            self._table,
        )
        assert row is not None
        return row["updates"], row["heap_only"]


def approved() -> Answer:
    now = datetime.now(UTC)
    return Answer(Approved("ref_0123456789abcdef"), "charge", now, now)


async def test_a_payment_that_begins_and_one_that_is_settled(empty: Database) -> None:
    items = await accept(empty, LIST)
    database, now = Counting(empty, "payments"), datetime.now(UTC)
    loaded = await PAYMENT_WORK.load(empty, items)
    begun = [PAYMENT_WORK.begin(payment, now) for payment in loaded.values()]
    await PAYMENT_WORK.move(database, begun)
    decided = [PAYMENT_WORK.decide(one.subject, approved(), "sandbox", now) for one in begun]
    await PAYMENT_WORK.move(database, [one for one in decided if isinstance(one, Move)])
    assert (database.updates, database.heap_only) == (2 * LIST, 2 * LIST)


async def test_a_refund_that_begins_and_one_that_is_settled(
    empty: Database, publisher: Publisher
) -> None:
    [paid] = await accept(empty, 1, amount=10 * LIST)
    now = datetime.now(UTC)
    loaded = list((await PAYMENT_WORK.load(empty, [paid])).values())
    begun = PAYMENT_WORK.begin(loaded[0], now)
    await PAYMENT_WORK.move(empty, [begun])
    decided = PAYMENT_WORK.decide(begun.subject, approved(), "sandbox", now)
    assert isinstance(decided, Move)
    await PAYMENT_WORK.move(empty, [decided])
    reserver = make_reserver(empty, publisher)
    reserved = await asyncio.gather(*(reserver.reserve(new_refund(paid, 1)) for _ in range(LIST)))
    items = [Item(one.refund.account_id, one.refund.id) for one in reserved]
    database = Counting(empty, "refunds")
    refunds = [REFUND_WORK.begin(r, now) for r in (await REFUND_WORK.load(empty, items)).values()]
    await REFUND_WORK.move(database, refunds)
    outcomes = [REFUND_WORK.decide(one.subject, approved(), "sandbox", now) for one in refunds]
    await REFUND_WORK.move(database, [one for one in outcomes if isinstance(one, Move)])
    assert (database.updates, database.heap_only) == (2 * LIST, 2 * LIST)


async def test_a_delivery_that_is_heard(empty: Database) -> None:
    await subscribe(empty, "http://127.0.0.1:1/")
    events = [await happen(empty) for _ in range(LIST)]
    opened = await open_deliveries(empty, events, lease=10)
    attempts = [t.attempt for targets in opened.values() for t in targets or [] if t.attempt]
    assert len(attempts) == LIST
    database = Counting(empty, "deliveries")
    result = Result(datetime.now(UTC), 1, 200)
    await record_attempts(database, [Finished(a, result, Delivered()) for a in attempts])
    assert {d["status"] for d in await deliveries(empty)} == {"delivered"}
    assert (database.updates, database.heap_only) == (LIST, LIST)
