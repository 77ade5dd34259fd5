"""Payments: accepted in sets, found, listed and counted."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from services.api.store.pages import Span, fetch_settling_page
from shared.db import Database
from shared.messages import CLOSING, PAYMENTS, Item, encode_item, opening
from shared.payment import COLUMNS, Payment
from shared.store import OutboxRow
from shared.topology import COMMANDS


class NewPayment(Struct, frozen=True):
    """A valid request that waits for its commit. `amount` is minor units."""

    account_id: str
    id: str
    amount: int
    currency: str
    customer: str | None
    description: str | None
    metadata: str
    idempotency_scope: str | None
    idempotency_key: str | None
    request_fingerprint: bytes | None
    request_id: str


async def insert_payments(
    database: Database, payments: Sequence[NewPayment]
) -> tuple[dict[str, datetime], OutboxRow | None]:
    """Commit payments and the message that tells of them, together.

    Returns when each new payment was created, by id, and the outbox row. A payment that is missing
    from the answer is there already: by its idempotency key, or by its id when an earlier try of
    this very call was committed and its answer lost.

    Give them sorted by key: two batches that hold the same keys must meet them in one order.
    """
    rows = await database.fetch(
        """
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[],
                          $6::text[], $7::text[], $8::text[], $9::text[], $10::bytea[],
                          $11::text[], $12::text[])
                AS i (account_id, id, amount, currency, customer, description,
                      metadata, idempotency_scope, idempotency_key, request_fingerprint, request_id,
                      item)
        ), accepted AS (
            INSERT INTO payments
                   (account_id, id, amount, currency, customer, description, metadata,
                    idempotency_scope, idempotency_key, request_fingerprint, request_id)
            SELECT account_id, id, amount, currency, customer, description, metadata::jsonb,
                   idempotency_scope, idempotency_key, request_fingerprint, request_id
              FROM input
                ON CONFLICT DO NOTHING
            RETURNING account_id, id, amount, currency, created_at
        ), counted AS (
            INSERT INTO arrivals (account_id, object, currency, status, number, amount)
            SELECT account_id, 'payment', currency, 'pending', count(*), sum(amount)
              FROM accepted
             GROUP BY account_id, currency
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $13, $14, $15 || string_agg(input.item, ',') || $16
              FROM input
             WHERE (account_id, id) IN (SELECT account_id, id FROM accepted)  -- hashed
            HAVING count(*) > 0
            RETURNING id, body
        )
        SELECT id AS payment_id, created_at, NULL::bigint AS outbox_id, NULL AS body FROM accepted
         UNION ALL
        SELECT NULL, NULL, id, body FROM queued
        """,
        [p.account_id for p in payments],
        [p.id for p in payments],
        [p.amount for p in payments],
        [p.currency for p in payments],
        [p.customer for p in payments],
        [p.description for p in payments],
        [p.metadata for p in payments],
        [p.idempotency_scope for p in payments],
        [p.idempotency_key for p in payments],
        [p.request_fingerprint for p in payments],
        [p.request_id for p in payments],
        [encode_item(Item(p.account_id, p.id, p.request_id)) for p in payments],
        COMMANDS,
        PAYMENTS,
        opening(PAYMENTS),
        CLOSING,
    )
    created = {row["payment_id"]: row["created_at"] for row in rows if row["outbox_id"] is None}
    outbox = [
        OutboxRow(row["outbox_id"], COMMANDS, PAYMENTS, row["body"])
        for row in rows
        if row["outbox_id"] is not None
    ]
    return created, outbox[0] if outbox else None


async def find_accepted(
    database: Database, payments: Sequence[NewPayment]
) -> tuple[dict[str, Payment], dict[tuple[str, str | None, str | None], Payment]]:
    """Payments that exist already: by id, and by (account, scope, key)."""
    rows = await database.fetch(
        f"""
        SELECT {COLUMNS}, idempotency_scope, idempotency_key
          FROM payments
         WHERE (account_id, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
         UNION
        SELECT {COLUMNS}, idempotency_scope, idempotency_key
          FROM payments
         WHERE (account_id, idempotency_scope, idempotency_key)
               IN (SELECT * FROM unnest($1::text[], $3::text[], $4::text[]))
        """,  # noqa: S608 - COLUMNS is a constant
        [p.account_id for p in payments],
        [p.id for p in payments],
        [p.idempotency_scope for p in payments],
        [p.idempotency_key for p in payments],
    )
    by_id, by_key = {}, {}
    for row in rows:
        fields = dict(row)
        scope, key = fields.pop("idempotency_scope"), fields.pop("idempotency_key")
        payment = Payment.from_row(fields)
        by_id[payment.id] = payment
        if key is not None:
            by_key[payment.account_id, scope, key] = payment
    return by_id, by_key


async def find_payment(database: Database, account_id: str, id_: str) -> Payment | None:
    """One payment of an account."""
    row = await database.fetchrow(
        f"SELECT {COLUMNS} FROM payments WHERE account_id = $1 AND id = $2",  # noqa: S608
        account_id,
        id_,
    )
    return Payment.from_row(row) if row else None


async def find_payments(database: Database, account_id: str, ids: Sequence[str]) -> list[Payment]:
    """Those of an account's payments that have these ids."""
    rows = await database.fetch(
        f"SELECT {COLUMNS} FROM payments"  # noqa: S608
        " WHERE account_id = $1 AND id = ANY($2::text[])",
        account_id,
        ids,
    )
    return [Payment.from_row(row) for row in rows]


async def list_payments(
    database: Database,
    account_id: str,
    span: Span,
    *,
    statuses: Sequence[str] | None,
    customer: str | None,
    currency: str | None,
) -> list[Payment]:
    """A part of an account's payments, newest first."""
    rows = await fetch_settling_page(
        database,
        f"SELECT {COLUMNS} FROM payments",  # noqa: S608 - constants
        "pay",
        account_id,
        span,
        sweep="payments",
        statuses=statuses,
        along={"customer": customer, "currency": currency},
    )
    return [Payment.from_row(row) for row in rows]
