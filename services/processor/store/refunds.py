"""Refunds: loaded, and moved to their next states, in sets."""

from collections.abc import Sequence

from services.processor.settlement import Move
from services.processor.store.moving import (
    CHANGES,
    INPUT,
    arguments,
    consequences,
    moved_and_messages,
)
from shared.db import Database
from shared.messages import Item
from shared.refund import COLUMNS, Refund
from shared.store import OutboxRow


async def load_refunds(database: Database, items: Sequence[Item]) -> dict[str, Refund]:
    """The refunds that `items` refer to, by id; one that does not exist is missing."""
    rows = await database.fetch(
        f"""
        SELECT {COLUMNS}
          FROM unnest($1::text[], $2::text[]) AS input (account_id, id)
          JOIN refunds USING (account_id, id)
        """,  # noqa: S608 - COLUMNS is a constant
        [item.account_id for item in items],
        [item.id for item in items],
    )
    return {row["id"]: Refund.from_row(row) for row in rows}


async def move_refunds(
    database: Database, moves: Sequence[Move[Refund]]
) -> tuple[set[str], list[OutboxRow]]:
    """Move refunds to their next states, with events, and with transfers where money moves.

    A completed refund moves its money back; a failed one gives its reservation back to the payment.
    Returns the ids of those that moved and the messages. A refund that is in another state than was
    expected is left as it is, with everything that would have come with it.
    """
    rows = await database.fetch(
        f"""
        {INPUT} moved AS (
            UPDATE refunds
               SET {CHANGES}
              FROM input
             WHERE refunds.account_id = input.account_id AND refunds.id = input.id
               AND refunds.status = input.expected
            RETURNING refunds.account_id, refunds.id, refunds.status, payment_id,
                      currency, amount, transfer_id, event_id, event_type, event_body, item
        ), unused AS (
            SELECT account_id, payment_id, sum(amount) AS amount
              FROM moved
             WHERE status = 'failed'
             GROUP BY account_id, payment_id
        ), locked AS (
            SELECT payments.account_id, payments.id, unused.amount
              FROM unused JOIN payments
                ON payments.account_id = unused.account_id AND payments.id = unused.payment_id
             ORDER BY payments.account_id, payments.id
               FOR UPDATE OF payments
        ), given_back AS (
            UPDATE payments
               SET amount_refunded = payments.amount_refunded - locked.amount, updated_at = now()
              FROM locked
             WHERE payments.account_id = locked.account_id AND payments.id = locked.id
        ), transferred AS (
            INSERT INTO transfers (account_id, id, debit, credit, currency, amount, kind, source_id)
            SELECT account_id, transfer_id, 'merchant_balance', 'gateway_clearing', currency,
                   amount, 'refund', id
              FROM moved
             WHERE status = 'completed'
            RETURNING account_id, debit, credit, currency, amount
        {consequences("refund")}
        """,  # noqa: S608 - made of constants
        *arguments(moves),
    )
    return moved_and_messages(rows)
