"""Data access by SQLAlchemy Core: one statement where one does it, and no read before a write.

Statements are made once; what differs from call to call are their parameters.
"""

from collections.abc import Sequence

from sqlalchemy import Row, String, bindparam, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from .database import autocommit, engine
from .domain import Attempt, NewPayment, Outgoing, event_values
from .models import (
    ApiKey,
    Balance,
    Delivery,
    DeliveryAttempt,
    Event,
    Payment,
    Transfer,
    WebhookEndpoint,
    utc_now,
)

payments = Payment.__table__
balances = Balance.__table__
transfers = Transfer.__table__
events = Event.__table__
endpoints = WebhookEndpoint.__table__
deliveries = Delivery.__table__
attempts = DeliveryAttempt.__table__
api_keys = ApiKey.__table__

FIND_ACCOUNT = select(api_keys.c.account_id).where(api_keys.c.key_hash == bindparam("key_hash"))

INSERT_PAYMENT = upsert(payments).on_conflict_do_nothing().returning(payments)
FIND_PAYMENT_BY_KEY = select(payments).where(
    payments.c.account_id == bindparam("account_id"),
    payments.c.idempotency_key == bindparam("idempotency_key"),
)
FIND_PAYMENT = select(payments).where(payments.c.id == bindparam("payment_id"))
BEGIN_PAYMENT = (
    update(payments)
    .where(payments.c.id == bindparam("payment_id"), payments.c.status == "pending")
    .values(status="processing")
    .returning(payments)
)
COMPLETE_PAYMENT = (
    update(payments)
    .where(payments.c.id == bindparam("payment_id"), payments.c.status == "processing")
    .values(status="completed", gateway_reference=bindparam("reference"))
    .returning(payments)
)

INSERT_EVENT = insert(events)
INSERT_TRANSFER = insert(transfers)
POST_TO_BALANCE = upsert(balances)
POST_TO_BALANCE = POST_TO_BALANCE.on_conflict_do_update(
    index_elements=balances.primary_key,
    set_={
        "debits": balances.c.debits + POST_TO_BALANCE.excluded.debits,
        "credits": balances.c.credits + POST_TO_BALANCE.excluded.credits,
    },
)

INSERT_ENDPOINT = insert(endpoints).returning(endpoints.c.id)
OPEN_DELIVERIES = (
    insert(deliveries)
    .from_select(
        ["event_id", "endpoint_id"],
        select(bindparam("event_id", type_=String), endpoints.c.id).where(
            endpoints.c.account_id == bindparam("account_id"),
            endpoints.c.enabled_events.any(bindparam("type", type_=String)),
        ),
        include_defaults=False,
    )
    .returning(deliveries.c.id)
)
FIND_OPEN_DELIVERIES = (
    select(deliveries.c.id)
    .join(events)
    .where(events.c.payment_id == bindparam("payment_id"), deliveries.c.status == "pending")
)
LOAD_DELIVERY = (
    select(events.c.id, events.c.body, endpoints.c.url, endpoints.c.secret)
    .select_from(deliveries.join(events).join(endpoints))
    .where(deliveries.c.id == bindparam("delivery_id"), deliveries.c.status != "delivered")
)
MOVE_DELIVERY = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("delivery_id"))
    .values(attempts=deliveries.c.attempts + 1, status=bindparam("outcome"))
    .returning(deliveries.c.attempts)
)
INSERT_ATTEMPT = insert(attempts)


def find_account(key_hash: bytes) -> str | None:
    """The account whose key has this hash."""
    with autocommit.connect() as connection:
        return connection.scalar(FIND_ACCOUNT, {"key_hash": key_hash})


def create_payment(new: NewPayment) -> tuple[Row, bool]:
    """Store a payment, or find what its idempotency key made before: True."""
    place = {"account_id": new.account_id, "idempotency_key": new.idempotency_key}
    with autocommit.connect() as connection:
        made = connection.execute(
            INSERT_PAYMENT,
            {
                **place,
                "user_id": new.user_id,
                "amount": new.amount,
                "currency": new.currency,
                "description": new.description,
            },
        ).one_or_none()
        if made is not None:
            return made, False
        return connection.execute(FIND_PAYMENT_BY_KEY, place).one(), True


def create_endpoint(account_id: str, url: str, enabled_events: list[str], secret: str) -> str:
    """Store an endpoint; returns its id."""
    with autocommit.connect() as connection:
        return connection.scalar(
            INSERT_ENDPOINT,
            {
                "account_id": account_id,
                "url": url,
                "enabled_events": enabled_events,
                "secret": secret,
            },
        )


def claim(payment_id: str) -> Row:
    """Begin a payment unless it was begun before; returns it as it is now."""
    with engine.begin() as connection:
        begun = connection.execute(BEGIN_PAYMENT, {"payment_id": payment_id}).one_or_none()
        if begun is None:
            return connection.execute(FIND_PAYMENT, {"payment_id": payment_id}).one()
        connection.execute(
            INSERT_EVENT, event_values(begun, "payment.processing", begun.updated_at)
        )
    return begun


def complete(payment_id: str, gateway_reference: str) -> Sequence[int]:
    """Complete a payment with its transfer, balances, event and deliveries, unless that was done
    before; returns the ids of the deliveries that are open."""
    with engine.begin() as connection:
        payment = connection.execute(
            COMPLETE_PAYMENT, {"payment_id": payment_id, "reference": gateway_reference}
        ).one_or_none()
        if payment is None:
            return find_open_deliveries(payment_id)
        event = event_values(payment, "payment.completed", utc_now())
        connection.execute(INSERT_EVENT, event)
        opened = connection.scalars(
            OPEN_DELIVERIES,
            {"event_id": event["id"], "account_id": payment.account_id, "type": event["type"]},
        ).all()
        moved = {
            "account_id": payment.account_id,
            "currency": payment.currency,
            "amount": payment.amount,
        }
        connection.execute(
            INSERT_TRANSFER,
            {
                **moved,
                "payment_id": payment_id,
                "debit": "gateway_clearing",
                "credit": "merchant_balance",
            },
        )
        # Last, because other payments of the account wait for these two rows until the commit.
        amount = moved.pop("amount")
        connection.execute(
            POST_TO_BALANCE,
            [
                {**moved, "kind": "gateway_clearing", "debits": amount, "credits": 0},
                {**moved, "kind": "merchant_balance", "debits": 0, "credits": amount},
            ],
        )
    return opened


def find_open_deliveries(payment_id: str) -> Sequence[int]:
    """The deliveries of a payment's events that nobody has attempted."""
    with autocommit.connect() as connection:
        return connection.scalars(FIND_OPEN_DELIVERIES, {"payment_id": payment_id}).all()


def load_delivery(delivery_id: int) -> Outgoing | None:
    """What a delivery sends and where; None when that was done."""
    with autocommit.connect() as connection:
        row = connection.execute(LOAD_DELIVERY, {"delivery_id": delivery_id}).one_or_none()
    return None if row is None else Outgoing(*row)


def record_attempt(delivery_id: int, attempt: Attempt, *, is_last: bool) -> None:
    """Write down an attempt and what becomes of its delivery."""
    with engine.begin() as connection:
        number = connection.scalar(
            MOVE_DELIVERY,
            {"delivery_id": delivery_id, "outcome": attempt.outcome(is_last=is_last)},
        )
        connection.execute(
            INSERT_ATTEMPT,
            {
                "delivery_id": delivery_id,
                "number": number,
                "started_at": attempt.started_at,
                "duration_ms": attempt.duration_ms,
                "status_code": attempt.status_code,
                "error": attempt.error,
            },
        )
