"""The processor's statements. One function, one statement, named by what it does.

Every change of state is a conditional UPDATE that says the state it expects; whatever depends on
the change is written by the same statement, from the rows that it really changed. Give rows sorted
by key, so that two batches which share some meet them in one order.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.processor.settlement import Settlement
from shared.db import Database
from shared.event import Event
from shared.messages import CLOSING, EVENTS, PAYMENTS, Item, encode_item, opening
from shared.payment import COLUMNS, Payment
from shared.store import OutboxRow
from shared.topology import COMMANDS
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
        """
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
                      event_id, event_body, item
        ), counted AS (
            INSERT INTO payment_counts (account_id, currency, status, payments, amount)
            SELECT account_id, currency, status, sign * count(*), sign * sum(amount)
              FROM begun, (VALUES ('pending', -1), ('processing', 1)) AS change (status, sign)
             GROUP BY account_id, currency, status, sign
        ), told AS (
            INSERT INTO events (account_id, id, type, object_id, body)
            SELECT account_id, event_id, 'payment.processing', id, event_body FROM begun
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $7, 'payment.processing', $8 || string_agg(item, ',') || $9
              FROM begun
            HAVING count(*) > 0
            RETURNING id, exchange, routing_key, body
        )
        SELECT id AS payment_id, NULL::bigint AS outbox_id, NULL AS exchange, NULL AS routing_key,
               NULL AS body
          FROM begun
         UNION ALL
        SELECT NULL, id, exchange, routing_key, body FROM queued
        """,
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
    return _moved_and_messages(rows)


async def settle_payments(
    database: Database, settlements: Sequence[Settlement]
) -> tuple[set[str], list[OutboxRow]]:
    """Move payments from processing to their final state, with transfers, balances and events.

    Returns the ids of those that moved and the messages. A payment that is settled already is left
    as it is, with everything that would have come with it.
    """
    rows = await database.fetch(
        """
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                          $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
                          $13::timestamptz[])
                AS i (account_id, id, status, gateway, gateway_reference, failure_code,
                      failure_message, transfer_id, event_id, event_type, event_body, item, at)
        ), settled AS (
            UPDATE payments
               SET status = input.status,
                   gateway = input.gateway,
                   gateway_reference = input.gateway_reference,
                   failure_code = input.failure_code,
                   failure_message = input.failure_message,
                   unknown_since = NULL,
                   updated_at = input.at,
                   processed_at = input.at
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
        ), posted AS (
            INSERT INTO ledger_accounts (account_id, currency, kind, debits_posted, credits_posted)
            SELECT account_id, currency, kind, sum(debited), sum(credited)
              FROM (SELECT account_id, currency, debit AS kind, amount AS debited, 0 AS credited
                      FROM moved
                     UNION ALL
                    SELECT account_id, currency, credit, 0, amount
                      FROM moved) AS entries
             GROUP BY account_id, currency, kind
             ORDER BY account_id, currency, kind  -- every settler locks balances in this order
                ON CONFLICT (account_id, currency, kind) DO UPDATE
               SET debits_posted = ledger_accounts.debits_posted + excluded.debits_posted,
                   credits_posted = ledger_accounts.credits_posted + excluded.credits_posted
        ), counted AS (
            INSERT INTO payment_counts (account_id, currency, status, payments, amount)
            SELECT account_id, currency, change.status, sign * count(*), sign * sum(amount)
              FROM settled,
                   LATERAL (VALUES ('processing', -1), (settled.status, 1)) AS change (status, sign)
             GROUP BY account_id, currency, change.status, sign
        ), told AS (
            INSERT INTO events (account_id, id, type, object_id, body)
            SELECT account_id, event_id, event_type, id, event_body FROM settled
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $14, event_type, $15 || string_agg(item, ',') || $16
              FROM settled
             GROUP BY event_type
            RETURNING id, exchange, routing_key, body
        )
        SELECT id AS payment_id, NULL::bigint AS outbox_id, NULL AS exchange, NULL AS routing_key,
               NULL AS body
          FROM settled
         UNION ALL
        SELECT NULL, id, exchange, routing_key, body FROM queued
        """,
        [s.payment.account_id for s in settlements],
        [s.payment.id for s in settlements],
        [s.payment.status for s in settlements],
        [s.payment.gateway for s in settlements],
        [s.payment.gateway_reference for s in settlements],
        [s.payment.failure_code for s in settlements],
        [s.payment.failure_message for s in settlements],
        [s.transfer_id for s in settlements],
        [s.event.id for s in settlements],
        [s.event.type for s in settlements],
        [s.event.body for s in settlements],
        [encode_item(Item(s.payment.account_id, s.event.id)) for s in settlements],
        [s.at for s in settlements],
        EVENTS_EXCHANGE,
        opening(EVENTS),
        CLOSING,
    )
    return _moved_and_messages(rows)


def _moved_and_messages(rows: Sequence[Mapping[str, Any]]) -> tuple[set[str], list[OutboxRow]]:
    moved = {row["payment_id"] for row in rows if row["outbox_id"] is None}
    messages = [
        OutboxRow(row["outbox_id"], row["exchange"], row["routing_key"], row["body"])
        for row in rows
        if row["outbox_id"] is not None
    ]
    return moved, messages


async def mark_unknown(database: Database, payments: Sequence[Payment]) -> None:
    """Note that the gateway was asked about these just now, and did not answer."""
    await database.execute(
        """
        UPDATE payments
           SET unknown_since = coalesce(unknown_since, now()), updated_at = now()
          FROM unnest($1::text[], $2::text[]) AS input (account_id, id)
         WHERE payments.account_id = input.account_id AND payments.id = input.id
           AND payments.status = 'processing'
        """,
        [payment.account_id for payment in payments],
        [payment.id for payment in payments],
    )


async def find_unknown(
    database: Database, *, now: datetime, shortest: float, longest: float, limit: int
) -> list[Payment]:
    """Payments whose outcome is unknown and due to be asked about at `now`.

    The wait is as long as the outcome had been unknown when it was last asked for, from `shortest`
    to `longest` seconds, so questions come ever more rarely: it doubles.
    """
    rows = await database.fetch(
        f"""
        SELECT {COLUMNS}
          FROM payments
         WHERE unknown_since IS NOT NULL
           AND updated_at + least(greatest(updated_at - unknown_since,
                                           make_interval(secs => $2)),
                                  make_interval(secs => $3)) <= $1
         ORDER BY updated_at
         LIMIT $4
        """,  # noqa: S608
        now,
        shortest,
        longest,
        limit,
    )
    return [Payment.from_row(row) for row in rows]


async def queue_lost_payments(database: Database, *, older_than: float, limit: int) -> list[str]:
    """Queue open payments again that no message may be left of, oldest first; returns their ids.

    A payment is due when it is `older_than` seconds old, and then each time its age has doubled
    since it was last queued: one that merely waits long is not queued over and over. Payments of
    unknown outcome are not lost: the janitor asks about those. Moves the sweep mark up to the
    oldest open payment, so the next look costs what is new.
    """
    rows = await database.fetch(
        """
        WITH since AS (
            SELECT coalesce((SELECT mark FROM sweep_marks WHERE name = 'payments'),
                            '-infinity') AS mark,
                   now() - make_interval(secs => $1) AS cutoff
        ), open AS (
            SELECT account_id, id, created_at, queued_again_at
              FROM payments
             WHERE created_at >= (SELECT mark FROM since)
               AND created_at < (SELECT cutoff FROM since)
               AND status IN ('pending', 'processing')
               AND unknown_since IS NULL
             ORDER BY created_at
             LIMIT $2
        ), lost AS (
            UPDATE payments
               SET queued_again_at = now()
              FROM open
             WHERE payments.account_id = open.account_id AND payments.id = open.id
               AND payments.status IN ('pending', 'processing')
               AND (open.queued_again_at IS NULL
                    OR now() - open.queued_again_at > open.queued_again_at - open.created_at)
            RETURNING payments.account_id, payments.id, payments.created_at
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $3, $4, json_build_object(
                       'v', 1, 'type', $4::text,
                       'items', json_agg(json_build_object('id', id, 'account_id', account_id)))
              FROM (SELECT *, row_number() OVER (ORDER BY created_at) / 100 AS envelope
                      FROM lost) AS numbered
             GROUP BY envelope
        ), marked AS (
            INSERT INTO sweep_marks (name, mark)
            SELECT 'payments', coalesce((SELECT min(created_at) FROM open),
                                        (SELECT cutoff FROM since))
                ON CONFLICT (name) DO UPDATE SET mark = greatest(sweep_marks.mark, excluded.mark)
        )
        SELECT id FROM lost
        """,
        older_than,
        limit,
        COMMANDS,
        PAYMENTS,
    )
    return [row["id"] for row in rows]


async def fold_counts(database: Database, *, more_than: int) -> None:
    """Replace the changes of every count that has more than `more_than` of them by their sum."""
    await database.execute(
        """
        WITH grown AS (
            SELECT account_id, currency, status
              FROM payment_counts
             GROUP BY account_id, currency, status
            HAVING count(*) > $1
        ), taken AS (
            DELETE FROM payment_counts
             USING grown
             WHERE payment_counts.account_id = grown.account_id
               AND payment_counts.currency = grown.currency
               AND payment_counts.status = grown.status
            RETURNING payment_counts.*
        )
        INSERT INTO payment_counts (account_id, currency, status, payments, amount)
        SELECT account_id, currency, status, sum(payments), sum(amount)
          FROM taken
         GROUP BY account_id, currency, status
        """,
        more_than,
    )
