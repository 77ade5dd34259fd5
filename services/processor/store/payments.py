"""Payments: loaded, and moved to their next states, in sets."""

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
from shared.payment import COLUMNS, Payment
from shared.store import OutboxRow


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


async def move_payments(
    database: Database, moves: Sequence[Move[Payment]]
) -> tuple[set[str], list[OutboxRow]]:
    """Move payments to their next states, with events, and with transfers where money moves.

    Returns the ids of those that moved and the messages. A payment that is in another state than
    was expected is left as it is, with everything that would have come with it.
    """
    rows = await database.fetch(
        f"""
        {INPUT} moved AS (
            UPDATE payments
               SET {CHANGES}
              FROM input
             WHERE payments.account_id = input.account_id AND payments.id = input.id
               AND payments.status = input.expected
            RETURNING payments.account_id, payments.id, payments.status, currency, amount,
                      transfer_id, event_id, event_type, event_body, item
        ), transferred AS (
            INSERT INTO transfers (account_id, id, debit, credit, currency, amount, kind, source_id)
            SELECT account_id, transfer_id, 'gateway_clearing', 'merchant_balance', currency,
                   amount, 'payment', id
              FROM moved
             WHERE status = 'completed'
            RETURNING account_id, debit, credit, currency, amount
        {consequences("payment")}
        """,  # noqa: S608 - made of constants
        *arguments(moves),
    )
    return moved_and_messages(rows)
