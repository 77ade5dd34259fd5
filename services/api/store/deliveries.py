"""Deliveries and their attempts: shown, and made again by hand."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from services.api.store.pages import Span, fetch_page
from shared.db import Connection, Database, Row, Rows
from shared.messages import CLOSING, DELIVERIES, Item, encode_item, opening
from shared.topology import COMMANDS


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint."""

    id: str
    event_id: str
    event_type: str
    endpoint_id: str
    status: str
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt; `duration_ms` is None when the notifier stopped before the outcome."""

    number: int
    started_at: datetime
    duration_ms: int | None
    status_code: int | None
    response_start: str | None
    error: str | None


_DELIVERY: Final = """
    SELECT * FROM (
        SELECT d.account_id, d.id, event_id, e.type AS event_type, d.endpoint_id, status, attempts,
               next_attempt_at, dead_at, held_at, d.created_at, updated_at
          FROM deliveries AS d
          JOIN events AS e ON e.account_id = d.account_id AND e.id = d.event_id
    ) AS shown"""


def _delivery(row: Row) -> Delivery:
    fields = dict(row)
    del fields["account_id"], fields["dead_at"], fields["held_at"]
    return Delivery(**fields)


async def list_deliveries(
    database: Database,
    account_id: str,
    span: Span,
    *,
    endpoint_id: str | None,
    status: Literal["dead", "retrying", "held"] | None,
) -> list[Delivery]:
    """A part of the deliveries to one endpoint, or to all, newest first."""
    rows = await fetch_page(
        database,
        _DELIVERY,
        "dlv",
        account_id,
        span,
        filters={
            "dead_at IS NOT NULL AND {}": True if status == "dead" else None,
            "next_attempt_at IS NOT NULL AND {}": True if status == "retrying" else None,
            "held_at IS NOT NULL AND {}": True if status == "held" else None,
        },
        along={"endpoint_id": endpoint_id},
    )
    return [_delivery(row) for row in rows]


async def find_delivery(rows: Rows, account_id: str, id_: str) -> Delivery | None:
    """One delivery of an account."""
    row = await rows.fetchrow(f"{_DELIVERY} WHERE account_id = $1 AND id = $2", account_id, id_)
    return _delivery(row) if row else None


async def list_attempts(database: Database, account_id: str, delivery_id: str) -> list[Attempt]:
    """The attempts at a delivery, in their order."""
    rows = await database.fetch(
        """
        SELECT number, started_at, duration_ms, status_code, response_start, error
          FROM delivery_attempts
         WHERE account_id = $1 AND delivery_id = $2
         ORDER BY number
        """,
        account_id,
        delivery_id,
    )
    return [Attempt(**row) for row in rows]


async def queue_redelivery(transaction: Connection, account_id: str, id_: str) -> bool:
    """Have a delivery attempted once more, now; False while an attempt at it is under way.

    It becomes due like any retry, and is claimed like any: the schedule and a redelivery by hand
    cannot overlap. A lease that ran out is given up, and its attempt written down as lost: an
    outcome that is recorded late finds that it no longer counts.
    """
    queued = await transaction.fetchval(
        """
        WITH free AS (
            SELECT account_id, id, attempts, lease_until, updated_at
              FROM deliveries
             WHERE account_id = $1 AND id = $2
               AND (lease_until IS NULL OR lease_until <= now())
               AND status NOT IN ('pending', 'held')
               FOR UPDATE
        ), lost AS (
            INSERT INTO delivery_attempts (account_id, delivery_id, number, started_at, error)
            SELECT account_id, id, attempts, updated_at,
                   'the notifier stopped before the outcome was known'
              FROM free
             WHERE lease_until IS NOT NULL
                ON CONFLICT DO NOTHING
        ), due AS (
            UPDATE deliveries
               SET status = 'retrying', next_attempt_at = now(), dead_at = NULL,
                   lease_until = NULL, updated_at = now()
              FROM free
             WHERE deliveries.account_id = free.account_id AND deliveries.id = free.id
            RETURNING deliveries.id
        )
        INSERT INTO outbox (exchange, routing_key, body)
        SELECT $3, $4, $5 FROM due
        RETURNING id
        """,
        account_id,
        id_,
        COMMANDS,
        DELIVERIES,
        opening(DELIVERIES) + encode_item(Item(account_id, id_, by_hand=True)) + CLOSING,
    )
    return queued is not None
