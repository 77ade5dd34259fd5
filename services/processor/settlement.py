"""What becomes of a payment or refund next, by what the gateway says: pure decisions, no I/O."""

from datetime import datetime
from typing import Any, Generic, TypeVar, assert_never

from msgspec import Struct
from msgspec.structs import replace

from services.processor.gateways.base import Approved, Charge, Declined, Outcome, Unknown
from services.processor.gateways.base import Refund as RefundQuestion
from shared.event import Event, make_event
from shared.event_types import (
    PAYMENT_COMPLETED,
    PAYMENT_FAILED,
    PAYMENT_PROCESSING,
    REFUND_COMPLETED,
    REFUND_FAILED,
)
from shared.ids import new_id
from shared.json_text import to_json
from shared.payment import Payment, iso, payment_object
from shared.refund import Refund, refund_object
from shared.states import PaymentStatus, RefundStatus

S = TypeVar("S", Payment, Refund)
"""What is settled."""


class Answer(Struct, frozen=True):
    """What the gateway said, to which question, and when."""

    outcome: Outcome
    question: str
    asked_at: datetime
    answered_at: datetime


class Move(Struct, Generic[S], frozen=True):
    """A payment or refund in its next state, and all that is written with it, in one commit, if it
    is still in the state that is `expected`.

    `event` tells of it, where somebody hears of such moves. `transfer_id` is given to a completed
    one alone: it is what moves the money. `calls` is JSON text, an array: the record of the
    question that settled it, nothing when it has only begun.
    """

    subject: S
    expected: str
    event: Event | None
    transfer_id: str | None = None
    calls: str = "[]"


class StillUnknown(Struct, Generic[S], frozen=True):
    """The gateway did not say: it stays `processing` and the janitor asks again."""

    subject: S
    reason: str
    call: str


def charge_for(payment: Payment) -> Charge:
    """The one question about a payment, the same however often it is asked."""
    return Charge(payment.id, payment.amount, payment.currency, payment.customer)


def refund_for(refund: Refund) -> RefundQuestion:
    """The one question about a refund, the same however often it is asked."""
    return RefundQuestion(refund.id, refund.amount, refund.currency, refund.payment_reference)


def begin_payment(payment: Payment, now: datetime) -> Move[Payment]:
    """A pending payment, in processing since `now`."""
    begun = replace(payment, status=PaymentStatus.PROCESSING, updated_at=now)
    event = make_event(begun.account_id, PAYMENT_PROCESSING, begun.id, payment_object(begun), now)
    return Move(begun, PaymentStatus.PENDING, event)


def begin_refund(refund: Refund, now: datetime) -> Move[Refund]:
    """A pending refund, in processing since `now`. Nobody is told: who asked for a refund knows."""
    begun = replace(refund, status=RefundStatus.PROCESSING, updated_at=now)
    return Move(begun, RefundStatus.PENDING, event=None)


def decide_payment(
    payment: Payment, answer: Answer, gateway: str, now: datetime
) -> Move[Payment] | StillUnknown[Payment]:
    """What becomes of a payment in `processing` that `gateway` was asked about."""
    changes = _changes(answer.outcome, gateway, now)
    if changes is None:
        return StillUnknown(payment, _reason(answer), as_call(answer))
    completed = isinstance(answer.outcome, Approved)
    status = PaymentStatus.COMPLETED if completed else PaymentStatus.FAILED
    final = replace(payment, status=status, **changes)
    type_ = PAYMENT_COMPLETED if completed else PAYMENT_FAILED
    event = make_event(final.account_id, type_, final.id, payment_object(final), now)
    transfer_id = new_id("txn") if completed else None
    return Move(final, PaymentStatus.PROCESSING, event, transfer_id, f"[{as_call(answer)}]")


def decide_refund(
    refund: Refund, answer: Answer, gateway: str, now: datetime
) -> Move[Refund] | StillUnknown[Refund]:
    """What becomes of a refund in `processing` that `gateway` was asked about."""
    changes = _changes(answer.outcome, gateway, now)
    if changes is None:
        return StillUnknown(refund, _reason(answer), as_call(answer))
    completed = isinstance(answer.outcome, Approved)
    status = RefundStatus.COMPLETED if completed else RefundStatus.FAILED
    final = replace(refund, status=status, **changes)
    type_ = REFUND_COMPLETED if completed else REFUND_FAILED
    transfer_id = new_id("txn") if completed else None
    event = make_event(final.account_id, type_, final.id, refund_object(final, transfer_id), now)
    return Move(final, RefundStatus.PROCESSING, event, transfer_id, f"[{as_call(answer)}]")


def _changes(outcome: Outcome, gateway: str, now: datetime) -> dict[str, Any] | None:
    """What an outcome changes besides the state; None when the gateway did not say."""
    common = {"gateway": gateway, "unknown_since": None, "updated_at": now, "processed_at": now}
    match outcome:
        case Approved(reference):
            return common | {"gateway_reference": reference}
        case Declined(code, message):
            return common | {"failure_code": code, "failure_message": message}
        case Unknown():
            return None
        case _:
            assert_never(outcome)


def _reason(answer: Answer) -> str:
    return answer.outcome.reason if isinstance(answer.outcome, Unknown) else ""


def as_call(answer: Answer) -> str:
    """The record of a question to the gateway, as JSON text."""
    record = {
        "question": answer.question,
        "asked_at": iso(answer.asked_at),
        "answered_at": iso(answer.answered_at),
        "duration_ms": round((answer.answered_at - answer.asked_at).total_seconds() * 1000),
        "outcome": type(answer.outcome).__name__.lower(),
    }
    match answer.outcome:
        case Declined(code, _):
            record["code"] = code
        case Unknown(reason):
            record["reason"] = reason
    return to_json(record)
