"""Payments: loaded, begun and settled, in sets."""

from collections.abc import Sequence
from datetime import datetime

from services.processor.settlement import Settlement
from services.processor.store.settling import (
    CHANGES,
    CONSEQUENCES,
    INPUT,
    arguments,
    moved_and_messages,
    tell,
)
from shared.db import Database
from shared.event import Event
from shared.messages import CLOSING, EVENTS, Item, encode_item, opening
from shared.payment import COLUMNS, Payment
from shared.store import OutboxRow
from shared.topology import EVENTS as EVENTS_EXCHANGE


async def load_payments(database: Database, items: Sequence[Item]) -> dict[str, Payment]:
    """The payments that `items` refer to, by id; one that does not exist is missing."""
    rows = await database.fetch(
        f"""
        SELECT {COLUMNS}
          FROM unnest($1::text[], $2::text[]) AS input (account_id, id)
          JOIN payments USING (account_id, id)
        """,  # noqa: S608 - COLUMNS is a constant
        [item.account_id for item in items],
        [item.id for item in items],
    )
    return {row["id"]: Payment.from_row(row) for row in rows}


async def begin_payments(
    database: Database, events: Sequence[Event], at: datetime
) -> tuple[set[str], list[OutboxRow]]:
    """Move payments from pending to processing, each with its `payment.processing` event.

    Returns the ids of those that moved (another processor may have been first) and the messages.
    """
    rows = await database.fetch(
        f"""
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
                AS i (account_id, id, event_id, event_body, item)
        ), begun AS (
            UPDATE payments
               SET status = 'processing', updated_at = $6
              FROM input
             WHERE payments.account_id = input.account_id AND payments.id = input.id
               AND payments.status = 'pending'
            RETURNING payments.account_id, payments.id, currency, amount,
                      event_id, 'payment.processing' AS event_type, event_body, item
        ), counted AS (
            INSERT INTO counts (account_id, object, currency, status, number, amount)
            SELECT account_id, 'payment', currency, status, sign * count(*), sign * sum(amount)
              FROM begun, (VALUES ('pending', -1), ('processing', 1)) AS change (status, sign)
             GROUP BY account_id, currency, status, sign
        {tell("begun")}, queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $7, 'payment.processing', $8 || string_agg(item, ',') || $9
              FROM begun
            HAVING count(*) > 0
            RETURNING id, exchange, routing_key, body
        )
        SELECT id AS moved_id, NULL::bigint AS outbox_id, NULL AS exchange, NULL AS routing_key,
               NULL AS body
          FROM begun
         UNION ALL
        SELECT NULL, id, exchange, routing_key, body FROM queued
        """,  # noqa: S608 - made of constants
        [event.account_id for event in events],
        [event.object_id for event in events],
        [event.id for event in events],
        [event.body for event in events],
        [encode_item(Item(event.account_id, event.id)) for event in events],
        at,
        EVENTS_EXCHANGE,
        opening(EVENTS),
        CLOSING,
    )
    return moved_and_messages(rows)


async def settle_payments(
    database: Database, settlements: Sequence[Settlement[Payment]]
) -> tuple[set[str], list[OutboxRow]]:
    """Move payments from processing to their final state, with transfers, balances and events.

    Returns the ids of those that moved and the messages. A payment that is settled already is left
    as it is, with everything that would have come with it.
    """
    rows = await database.fetch(
        f"""
        {INPUT} settled AS (
            UPDATE payments
               SET {CHANGES}
              FROM input
             WHERE payments.account_id = input.account_id AND payments.id = input.id
               AND payments.status = 'processing'
            RETURNING payments.account_id, payments.id, payments.status, currency, amount,
                      transfer_id, event_id, event_type, event_body, item
        ), moved AS (
            INSERT INTO transfers (account_id, id, debit, credit, currency, amount, kind, source_id)
            SELECT account_id, transfer_id, 'gateway_clearing', 'merchant_balance', currency,
                   amount, 'payment', id
              FROM settled
             WHERE status = 'completed'
            RETURNING account_id, debit, credit, currency, amount
        {CONSEQUENCES.format(object="payment", told=tell("settled"))}
        """,  # noqa: S608 - made of constants
        *arguments(settlements),
    )
    return moved_and_messages(rows)
