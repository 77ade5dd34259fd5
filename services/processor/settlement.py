"""What an answer of the gateway means for a payment: pure decisions, no I/O."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from services.processor.gateways.base import Approved, Charge, Declined, Unknown
from shared.event import Event, make_event
from shared.event_types import PAYMENT_COMPLETED, PAYMENT_FAILED, PAYMENT_PROCESSING
from shared.ids import new_id
from shared.payment import Payment, payment_object
from shared.states import PaymentStatus


@dataclass(frozen=True, slots=True)
class Settlement:
    """The final state of a payment, everything that is written with it, in one commit.

    `transfer_id` is given to a completed payment alone: it is what moves the money.
    """

    payment: Payment
    event: Event
    transfer_id: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class StillUnknown:
    """The gateway did not say: the payment stays `processing` and the janitor asks again."""

    payment: Payment
    reason: str


def to_charge(payment: Payment) -> Charge:
    """The one question about a payment, the same however often it is asked."""
    return Charge(payment.id, payment.amount, payment.currency, payment.customer)


def begun(payment: Payment, now: datetime) -> Event:
    """The event that says that settling `payment` has begun."""
    moved = replace(payment, status=PaymentStatus.PROCESSING, updated_at=now)
    return make_event(
        payment.account_id, PAYMENT_PROCESSING, payment.id, payment_object(moved), now
    )


def decide(
    payment: Payment, outcome: Approved | Declined | Unknown, gateway: str, now: datetime
) -> Settlement | StillUnknown:
    """What becomes of a payment in `processing` for which `gateway` answered `outcome`."""
    match outcome:
        case Approved(reference):
            moved = replace(
                payment,
                status=PaymentStatus.COMPLETED,
                gateway=gateway,
                gateway_reference=reference,
                unknown_since=None,
                updated_at=now,
                processed_at=now,
            )
            return _settled(moved, PAYMENT_COMPLETED, new_id("txn"), now)
        case Declined(code, message):
            moved = replace(
                payment,
                status=PaymentStatus.FAILED,
                gateway=gateway,
                failure_code=code,
                failure_message=message,
                unknown_since=None,
                updated_at=now,
                processed_at=now,
            )
            return _settled(moved, PAYMENT_FAILED, None, now)
        case Unknown(reason):
            return StillUnknown(payment, reason)
        case _:
            assert_never(outcome)


def _settled(moved: Payment, type_: str, transfer_id: str | None, now: datetime) -> Settlement:
    event = make_event(moved.account_id, type_, moved.id, payment_object(moved), now)
    return Settlement(moved, event, transfer_id, now)
