"""The API's statements. One function, one statement, named by what it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db import Database, Row
from shared.messages import CLOSING, PAYMENTS, Item, encode_item, opening
from shared.payment import COLUMNS, Payment
from shared.store import OutboxRow
from shared.topology import COMMANDS


@dataclass(frozen=True, slots=True)
class NewPayment:
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
            INSERT INTO payment_counts (account_id, currency, status, payments, amount)
            SELECT account_id, currency, 'pending', count(*), sum(amount)
              FROM accepted
             GROUP BY account_id, currency
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $13, $14, $15 || string_agg(input.item, ',') || $16
              FROM accepted JOIN input USING (account_id, id)
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


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a list: `limit` rows older than the id `after`, or the oldest of those newer
    than the id `before`, and made from `since` and before `until`."""

    limit: int
    after: str | None
    before: str | None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def direction(self) -> str:
        """How to walk the index so that the first rows found are those wanted."""
        return "ASC" if self.before is not None else "DESC"

    def newest_first(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows that were found, in the order in which they are shown."""
        return rows[::-1] if self.before is not None else rows


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
    rows = await database.fetch(
        f"""
        SELECT {COLUMNS}
          FROM payments
         WHERE account_id = $1
           AND ($2::text IS NULL OR id < $2)
           AND ($3::text IS NULL OR id > $3)
           AND ($4::timestamptz IS NULL OR created_at >= $4)
           AND ($5::timestamptz IS NULL OR created_at < $5)
           AND ($6::text[] IS NULL OR status = ANY($6))
           AND ($7::text IS NULL OR customer = $7)
           AND ($8::text IS NULL OR currency = $8)
         ORDER BY id {span.direction}
         LIMIT $9
        """,  # noqa: S608 - constants
        account_id,
        span.after,
        span.before,
        span.since,
        span.until,
        statuses,
        customer,
        currency,
        span.limit,
    )
    return [Payment.from_row(row) for row in span.newest_first(rows)]


async def list_events(
    database: Database, account_id: str, span: Span, *, types: Sequence[str] | None
) -> list[tuple[str, int]]:
    """A part of an account's events, newest first: (body, deliveries that are not finished)."""
    rows = await database.fetch(
        f"""
        SELECT body, (SELECT count(*) FROM deliveries
                       WHERE deliveries.account_id = events.account_id
                         AND deliveries.event_id = events.id
                         AND deliveries.status IN ('pending', 'retrying')) AS pending
          FROM events
         WHERE account_id = $1
           AND ($2::text IS NULL OR id < $2)
           AND ($3::text IS NULL OR id > $3)
           AND ($4::timestamptz IS NULL OR created_at >= $4)
           AND ($5::timestamptz IS NULL OR created_at < $5)
           AND ($6::text[] IS NULL OR type = ANY($6))
         ORDER BY id {span.direction}
         LIMIT $7
        """,  # noqa: S608
        account_id,
        span.after,
        span.before,
        span.since,
        span.until,
        types,
        span.limit,
    )
    return [(row["body"], row["pending"]) for row in span.newest_first(rows)]


async def find_event(database: Database, account_id: str, id_: str) -> tuple[str, int] | None:
    """One event of an account: (body, deliveries that are not finished)."""
    row = await database.fetchrow(
        """
        SELECT body, (SELECT count(*) FROM deliveries
                       WHERE deliveries.account_id = events.account_id
                         AND deliveries.event_id = events.id
                         AND deliveries.status IN ('pending', 'retrying')) AS pending
          FROM events
         WHERE account_id = $1 AND id = $2
        """,
        account_id,
        id_,
    )
    return (row["body"], row["pending"]) if row else None


@dataclass(frozen=True, slots=True)
class Transfer:
    """One row of `transfers`, as the merchant's balance sees it. `amount` is minor units."""

    id: str
    kind: str
    source_id: str
    currency: str
    amount: int
    credit: str
    created_at: datetime


_TRANSFER = "id, kind, source_id, currency, amount, credit, created_at"


async def list_transfers(
    database: Database, account_id: str, span: Span, *, source_id: str | None, currency: str | None
) -> list[Transfer]:
    """A part of an account's transfers, newest first."""
    rows = await database.fetch(
        f"""
        SELECT {_TRANSFER}
          FROM transfers
         WHERE account_id = $1
           AND ($2::text IS NULL OR id < $2)
           AND ($3::text IS NULL OR id > $3)
           AND ($4::timestamptz IS NULL OR created_at >= $4)
           AND ($5::timestamptz IS NULL OR created_at < $5)
           AND ($6::text IS NULL OR source_id = $6)
           AND ($7::text IS NULL OR currency = $7)
         ORDER BY id {span.direction}
         LIMIT $8
        """,  # noqa: S608
        account_id,
        span.after,
        span.before,
        span.since,
        span.until,
        source_id,
        currency,
        span.limit,
    )
    return [Transfer(**row) for row in span.newest_first(rows)]


async def find_transfers_of(
    database: Database, account_id: str, payment_ids: Sequence[str]
) -> dict[str, str]:
    """The ids of the transfers that payments made, by the payment's id."""
    rows = await database.fetch(
        """
        SELECT source_id, id
          FROM transfers
         WHERE account_id = $1 AND kind = 'payment' AND source_id = ANY($2::text[])
        """,
        account_id,
        payment_ids,
    )
    return {row["source_id"]: row["id"] for row in rows}


async def find_transfer(database: Database, account_id: str, id_: str) -> Transfer | None:
    """One transfer of an account."""
    row = await database.fetchrow(
        f"SELECT {_TRANSFER} FROM transfers WHERE account_id = $1 AND id = $2",  # noqa: S608
        account_id,
        id_,
    )
    return Transfer(**row) if row else None


async def find_balances(
    database: Database, account_id: str
) -> tuple[dict[str, int], dict[str, int]]:
    """Minor units by currency: what the ledger holds for the merchant, and what is under way."""
    rows = await database.fetch(
        """
        SELECT 'available' AS part, currency, credits_posted - debits_posted AS amount
          FROM ledger_accounts
         WHERE account_id = $1 AND kind = 'merchant_balance'
         UNION ALL
        SELECT 'pending', currency, sum(amount)
          FROM payment_counts
         WHERE account_id = $1 AND status IN ('pending', 'processing')
         GROUP BY currency
        HAVING sum(amount) <> 0
         ORDER BY part, currency
        """,
        account_id,
    )
    parts: dict[str, dict[str, int]] = {"available": {}, "pending": {}}
    for row in rows:
        parts[row["part"]][row["currency"]] = int(row["amount"])
    return parts["available"], parts["pending"]


async def count_payments(
    database: Database, account_id: str | None
) -> list[tuple[str, str, int, int]]:
    """(currency, status, payments, amount in minor units), of one account or of all."""
    rows = await database.fetch(
        """
        SELECT currency, status, sum(payments)::bigint AS payments, sum(amount) AS amount
          FROM payment_counts
         WHERE $1::text IS NULL OR account_id = $1
         GROUP BY currency, status
         ORDER BY currency, status
        """,
        account_id,
    )
    return [(row["currency"], row["status"], row["payments"], int(row["amount"])) for row in rows]


async def find_keys(database: Database, prefix: str) -> Sequence[Mapping[str, Any]]:
    """Keys that are in force and start with `prefix`: account_id, id, key_hash, role."""
    return await database.fetch(
        """
        SELECT account_id, id, key_hash, role
          FROM api_keys
         WHERE prefix = $1 AND revoked_at IS NULL
        """,
        prefix,
    )


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """One row of `webhook_endpoints`; `metadata` is JSON text."""

    account_id: str
    id: str
    url: str
    enabled_events: list[str]
    description: str | None
    metadata: str
    created_at: datetime


_ENDPOINT = (
    "account_id, id, url, enabled_events, description, metadata::text AS metadata, created_at"
)


async def insert_webhook_endpoint(
    database: Database,
    *,
    account_id: str,
    id_: str,
    url: str,
    enabled_events: list[str],
    description: str | None,
    metadata: str,
    secret: str,
) -> WebhookEndpoint:
    """Subscribe an endpoint from now on."""
    row = await database.fetchrow(
        f"""
        INSERT INTO webhook_endpoints
               (account_id, id, url, enabled_events, description, metadata, secret)
        VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7)
        RETURNING {_ENDPOINT}
        """,  # noqa: S608
        account_id,
        id_,
        url,
        enabled_events,
        description,
        metadata,
        secret,
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING has a row
    return WebhookEndpoint(**row)


async def find_webhook_endpoint(
    database: Database, account_id: str, id_: str
) -> WebhookEndpoint | None:
    """One endpoint of an account that is not deleted."""
    row = await database.fetchrow(
        f"""
        SELECT {_ENDPOINT} FROM webhook_endpoints
         WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL
        """,  # noqa: S608
        account_id,
        id_,
    )
    return WebhookEndpoint(**row) if row else None


async def list_webhook_endpoints(
    database: Database, account_id: str, span: Span
) -> list[WebhookEndpoint]:
    """A part of an account's endpoints, newest first."""
    rows = await database.fetch(
        f"""
        SELECT {_ENDPOINT} FROM webhook_endpoints
         WHERE account_id = $1 AND deleted_at IS NULL
           AND ($2::text IS NULL OR id < $2)
           AND ($3::text IS NULL OR id > $3)
         ORDER BY id {span.direction}
         LIMIT $4
        """,  # noqa: S608
        account_id,
        span.after,
        span.before,
        span.limit,
    )
    return [WebhookEndpoint(**row) for row in span.newest_first(rows)]


async def has_keys(database: Database) -> bool:
    """Whether any key is in force."""
    found: bool = await database.fetchval(
        "SELECT EXISTS (SELECT 1 FROM api_keys WHERE revoked_at IS NULL)"
    )
    return found


async def delete_webhook_endpoint(database: Database, account_id: str, id_: str) -> bool:
    """End a subscription; what it was subscribed to until now is still delivered."""
    result = await database.execute(
        """
        UPDATE webhook_endpoints SET deleted_at = now()
         WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL
        """,
        account_id,
        id_,
    )
    return result == "UPDATE 1"
