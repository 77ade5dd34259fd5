"""Data access by SQLAlchemy's ORM: objects are loaded, changed and flushed."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from .database import Session
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


def find_account(key_hash: bytes) -> str | None:
    """The account whose key has this hash."""
    with Session() as session:
        return session.scalar(select(ApiKey.account_id).where(ApiKey.key_hash == key_hash))


def create_payment(new: NewPayment) -> tuple[Payment, bool]:
    """Store a payment, or find what its idempotency key made before: True."""
    payment = Payment(
        account_id=new.account_id,
        idempotency_key=new.idempotency_key,
        user_id=new.user_id,
        amount=new.amount,
        currency=new.currency,
        description=new.description,
    )
    try:
        with Session.begin() as session:
            session.add(payment)
    except IntegrityError:
        with Session() as session:
            earlier = session.scalar(
                select(Payment).where(
                    Payment.account_id == new.account_id,
                    Payment.idempotency_key == new.idempotency_key,
                )
            )
        if earlier is None:
            raise
        return earlier, True
    return payment, False


def create_endpoint(account_id: str, url: str, enabled_events: list[str], secret: str) -> str:
    """Store an endpoint; returns its id."""
    with Session.begin() as session:
        endpoint = WebhookEndpoint(
            account_id=account_id, url=url, enabled_events=enabled_events, secret=secret
        )
        session.add(endpoint)
    return endpoint.id


def claim(payment_id: str) -> Payment:
    """Begin a payment unless it was begun before; returns it as it is now."""
    with Session.begin() as session:
        payment = session.get_one(Payment, payment_id, with_for_update=True)
        if payment.status == "pending":
            payment.status = "processing"
            payment.updated_at = utc_now()
            session.add(Event(**event_values(payment, "payment.processing", payment.updated_at)))
    return payment


def complete(payment_id: str, gateway_reference: str) -> Sequence[int]:
    """Complete a payment with its transfer, balances, event and deliveries, unless that was done
    before; returns the ids of the deliveries that are open."""
    with Session.begin() as session:
        payment = session.get_one(Payment, payment_id, with_for_update=True)
        if payment.status != "processing":
            return find_open_deliveries(payment_id)
        payment.status = "completed"
        payment.gateway_reference = gateway_reference
        payment.updated_at = utc_now()
        event = Event(**event_values(payment, "payment.completed", payment.updated_at))
        endpoints = session.scalars(
            select(WebhookEndpoint).where(
                WebhookEndpoint.account_id == payment.account_id,
                WebhookEndpoint.enabled_events.any(event.type),
            )
        )
        event.deliveries = [Delivery(endpoint=endpoint) for endpoint in endpoints]
        session.add(event)
        session.add(
            Transfer(
                account_id=payment.account_id,
                payment_id=payment.id,
                debit="gateway_clearing",
                credit="merchant_balance",
                amount=payment.amount,
                currency=payment.currency,
            )
        )
        clearing, merchant = _lock_balances(session, payment)
        clearing.debits += payment.amount
        merchant.credits += payment.amount
    return [delivery.id for delivery in event.deliveries]


def _lock_balances(session: Session, payment: Payment) -> Sequence[Balance]:
    """Both balances of a payment's account, in one order; made when they are not there."""
    place = {"account_id": payment.account_id, "currency": payment.currency}
    locked = select(Balance).filter_by(**place).order_by(Balance.kind).with_for_update()
    balances = session.scalars(locked).all()
    if len(balances) < 2:
        kinds = [{**place, "kind": kind} for kind in ("gateway_clearing", "merchant_balance")]
        session.execute(insert(Balance).values(kinds).on_conflict_do_nothing())
        balances = session.scalars(locked).all()
    return balances


def find_open_deliveries(payment_id: str) -> Sequence[int]:
    """The deliveries of a payment's events that nobody has attempted."""
    with Session() as session:
        return session.scalars(
            select(Delivery.id)
            .join(Delivery.event)
            .where(Event.payment_id == payment_id, Delivery.status == "pending")
        ).all()


def load_delivery(delivery_id: int) -> Outgoing | None:
    """What a delivery sends and where; None when that was done."""
    with Session() as session:
        delivery = session.get_one(
            Delivery,
            delivery_id,
            options=[joinedload(Delivery.event), joinedload(Delivery.endpoint)],
        )
        if delivery.status == "delivered":
            return None
        event, endpoint = delivery.event, delivery.endpoint
        return Outgoing(event.id, event.body, endpoint.url, endpoint.secret)


def record_attempt(delivery_id: int, attempt: Attempt, *, is_last: bool) -> None:
    """Write down an attempt and what becomes of its delivery."""
    with Session.begin() as session:
        delivery = session.get_one(Delivery, delivery_id, with_for_update=True)
        delivery.attempts += 1
        delivery.status = attempt.outcome(is_last=is_last)
        session.add(
            DeliveryAttempt(
                delivery_id=delivery_id,
                number=delivery.attempts,
                started_at=attempt.started_at,
                duration_ms=attempt.duration_ms,
                status_code=attempt.status_code,
                error=attempt.error,
            )
        )
