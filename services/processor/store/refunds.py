"""Refunds: loaded, begun and settled, in sets."""

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


async def begin_refunds(database: Database, refunds: Sequence[Refund], at: datetime) -> None:
    """Move refunds from pending to processing, unless another processor has moved them."""
    await database.execute(
        """
        WITH input AS (
            SELECT * FROM unnest($1::text[], $2::text[]) AS i (account_id, id)
        ), begun AS (
            UPDATE refunds
               SET status = 'processing', updated_at = $3
              FROM input
             WHERE refunds.account_id = input.account_id AND refunds.id = input.id
               AND refunds.status = 'pending'
            RETURNING refunds.account_id, currency, amount
        )
        INSERT INTO counts (account_id, object, currency, status, number, amount)
        SELECT account_id, 'refund', currency, status, sign * count(*), sign * sum(amount)
          FROM begun, (VALUES ('pending', -1), ('processing', 1)) AS change (status, sign)
         GROUP BY account_id, currency, status, sign
        """,
        [refund.account_id for refund in refunds],
        [refund.id for refund in refunds],
        at,
    )


async def settle_refunds(
    database: Database, settlements: Sequence[Settlement[Refund]]
) -> tuple[set[str], list[OutboxRow]]:
    """Move refunds from processing to their final state, with transfers, balances and events.

    A completed refund moves its money back; a failed one gives its reservation back to the payment.
    Returns the ids of those that moved and the messages. A refund that is settled already is left
    as it is, with everything that would have come with it.
    """
    rows = await database.fetch(
        f"""
        {INPUT} settled AS (
            UPDATE refunds
               SET {CHANGES}
              FROM input
             WHERE refunds.account_id = input.account_id AND refunds.id = input.id
               AND refunds.status = 'processing'
            RETURNING refunds.account_id, refunds.id, refunds.status, payment_id, currency, amount,
                      transfer_id, event_id, event_type, event_body, item
        ), unused AS (
            SELECT account_id, payment_id, sum(amount) AS amount
              FROM settled
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
        ), moved AS (
            INSERT INTO transfers (account_id, id, debit, credit, currency, amount, kind, source_id)
            SELECT account_id, transfer_id, 'merchant_balance', 'gateway_clearing', currency,
                   amount, 'refund', id
              FROM settled
             WHERE status = 'completed'
            RETURNING account_id, debit, credit, currency, amount
        {CONSEQUENCES.format(object="refund", told=tell("settled"))}
        """,  # noqa: S608 - made of constants
        *arguments(settlements),
    )
    return moved_and_messages(rows)
