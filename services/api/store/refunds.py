"""Refunds: reserved on their payments, found and listed."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from services.api.store.pages import Span, fetch_settling_page
from shared.db import Database
from shared.messages import CLOSING, REFUNDS, Item, encode_item, opening
from shared.refund import COLUMNS, Refund
from shared.states import PaymentStatus
from shared.store import OutboxRow
from shared.topology import COMMANDS


class NewRefund(Struct, frozen=True):
    """A valid request that waits for its reservation. `amount` is minor units; None means all that
    is left of the payment."""

    account_id: str
    id: str
    payment_id: str
    amount: int | None
    reason: str | None
    metadata: str
    idempotency_key: str | None
    request_fingerprint: bytes | None
    request_id: str


async def reserve_refunds(
    database: Database, refunds: Sequence[NewRefund]
) -> tuple[dict[str, Refund], OutboxRow | None]:
    """Reserve amounts on completed payments that have them left, and make the refunds.

    Returns the refunds that were made, by id, and the outbox row. The conditional UPDATE is the
    gate; whoever is missing from the answer was refused by it, or was there already by its id or
    key. Raises RowRefused for a key that another process took in this very moment.

    Give them sorted by payment, and no two of one payment: a statement changes a row once.
    """
    rows = await database.fetch(
        f"""
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[],
                          $7::text[], $8::bytea[], $9::text[], $10::text[])
                AS i (account_id, id, payment_id, asked, reason, metadata, idempotency_key,
                      request_fingerprint, request_id, item)
             WHERE NOT EXISTS (SELECT FROM refunds
                                WHERE refunds.account_id = i.account_id
                                  AND refunds.idempotency_key = i.idempotency_key)
               AND NOT EXISTS (SELECT FROM refunds
                                WHERE refunds.account_id = i.account_id AND refunds.id = i.id)
        ), locked AS (
            SELECT input.*, coalesce(asked, amount - amount_refunded) AS wanted
              FROM input JOIN payments
                ON payments.account_id = input.account_id AND payments.id = input.payment_id
             ORDER BY payments.account_id, payments.id
               FOR UPDATE OF payments
        ), reserved AS (
            UPDATE payments
               SET amount_refunded = payments.amount_refunded + wanted, updated_at = now()
              FROM locked
             WHERE payments.account_id = locked.account_id AND payments.id = locked.payment_id
               AND payments.status = 'completed'
               AND wanted > 0 AND wanted <= payments.amount - payments.amount_refunded
            RETURNING locked.*, payments.currency, payments.gateway_reference AS payment_reference
        ), made AS (
            INSERT INTO refunds (account_id, id, payment_id, amount, currency, payment_reference,
                                 reason, metadata, idempotency_key, request_fingerprint, request_id)
            SELECT account_id, id, payment_id, wanted, currency, payment_reference,
                   reason, metadata::jsonb, idempotency_key, request_fingerprint, request_id
              FROM reserved
            RETURNING {COLUMNS}
        ), counted AS (
            INSERT INTO arrivals (account_id, object, currency, status, number, amount)
            SELECT account_id, 'refund', currency, 'pending', count(*), sum(wanted)
              FROM reserved
             GROUP BY account_id, currency
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $11, $12, $13 || string_agg(item, ',') || $14
              FROM reserved
            HAVING count(*) > 0
            RETURNING id, body
        )
        SELECT made.*, queued.id AS outbox_id, queued.body AS outbox_body FROM made, queued
        """,  # noqa: S608 - COLUMNS is a constant
        [r.account_id for r in refunds],
        [r.id for r in refunds],
        [r.payment_id for r in refunds],
        [r.amount for r in refunds],
        [r.reason for r in refunds],
        [r.metadata for r in refunds],
        [r.idempotency_key for r in refunds],
        [r.request_fingerprint for r in refunds],
        [r.request_id for r in refunds],
        [encode_item(Item(r.account_id, r.id, r.request_id)) for r in refunds],
        COMMANDS,
        REFUNDS,
        opening(REFUNDS),
        CLOSING,
    )
    made: dict[str, Refund] = {}
    outbox = None
    for row in rows:
        fields = dict(row)
        outbox = OutboxRow(fields.pop("outbox_id"), COMMANDS, REFUNDS, fields.pop("outbox_body"))
        made[fields["id"]] = Refund.from_row(fields)
    return made, outbox


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands in the way of a refund that was not made, as it is now.

    `earlier` is a refund with the same id or key. The rest is about the payment, None where there
    is no such payment; `left` is minor units.
    """

    earlier: Refund | None
    status: PaymentStatus | None
    currency: str | None
    left: int


async def find_standings(database: Database, refunds: Sequence[NewRefund]) -> dict[str, Standing]:
    """How things stand for each of `refunds`, by its id."""
    rows = await database.fetch(
        f"""
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                AS i (account_id, asked_id, asked_payment, key)
        ), earlier AS (
            SELECT asked_id, refunds.*
              FROM input JOIN refunds
                ON refunds.account_id = input.account_id AND refunds.id = asked_id
             UNION ALL
            SELECT asked_id, refunds.*
              FROM input JOIN refunds
                ON refunds.account_id = input.account_id AND refunds.idempotency_key = key
               AND refunds.id <> asked_id
        )
        SELECT input.asked_id, payments.status AS payment_status,
               payments.currency AS payment_currency,
               payments.amount - payments.amount_refunded AS payment_left, shown.*
          FROM input
          LEFT JOIN payments
            ON payments.account_id = input.account_id AND payments.id = input.asked_payment
          LEFT JOIN (SELECT asked_id AS asker, {COLUMNS} FROM earlier) AS shown
            ON shown.asker = input.asked_id
        """,  # noqa: S608 - COLUMNS is a constant
        [r.account_id for r in refunds],
        [r.id for r in refunds],
        [r.payment_id for r in refunds],
        [r.idempotency_key for r in refunds],
    )
    found = {}
    for row in rows:
        fields = dict(row)
        status, currency = fields.pop("payment_status"), fields.pop("payment_currency")
        left = fields.pop("payment_left")
        asked_id, _ = fields.pop("asked_id"), fields.pop("asker")
        found[asked_id] = Standing(
            Refund.from_row(fields) if fields["id"] is not None else None,
            PaymentStatus(status) if status is not None else None,
            currency,
            left or 0,
        )
    return found


async def find_refund(database: Database, account_id: str, id_: str) -> Refund | None:
    """One refund of an account."""
    row = await database.fetchrow(
        f"SELECT {COLUMNS} FROM refunds WHERE account_id = $1 AND id = $2",  # noqa: S608
        account_id,
        id_,
    )
    return Refund.from_row(row) if row else None


async def list_refunds(
    database: Database,
    account_id: str,
    span: Span,
    *,
    payment_id: str | None,
    statuses: Sequence[str] | None,
) -> list[Refund]:
    """A part of an account's refunds, newest first."""
    rows = await fetch_settling_page(
        database,
        f"SELECT {COLUMNS} FROM refunds",  # noqa: S608
        "re",
        account_id,
        span,
        sweep="refunds",
        statuses=statuses,
        along={"payment_id": payment_id},
    )
    return [Refund.from_row(row) for row in rows]
