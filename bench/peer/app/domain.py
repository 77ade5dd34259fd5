"""What either way of data access takes and gives."""

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from .models import DeliveryStatus, PaymentStatus, new_id


@dataclass(frozen=True, slots=True)
class NewPayment:
    """A valid request for a payment."""

    account_id: str
    idempotency_key: str | None
    user_id: str
    amount: Decimal
    currency: str
    description: str | None


class PaymentRow(Protocol):
    """A payment as it is stored: an object of the ORM, or a row of Core."""

    id: str
    account_id: str
    user_id: str
    amount: Decimal
    currency: str
    description: str | None
    status: PaymentStatus
    gateway_reference: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A delivery that is to be attempted."""

    event_id: str
    body: str
    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a request to an endpoint came to. `status_code` is None when there was no answer."""

    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None

    @property
    def succeeded(self) -> bool:
        """Whether the endpoint took it."""
        return self.status_code is not None and 200 <= self.status_code < 300

    def outcome(self, *, is_last: bool) -> DeliveryStatus:
        """What becomes of the delivery."""
        if self.succeeded:
            return "delivered"
        return "dead" if is_last else "retrying"


def event_values(payment: PaymentRow, type_: str, now: datetime) -> dict[str, Any]:
    """The columns of an event that happened to `payment` at `now`."""
    id_ = new_id("evt")
    body = {
        "id": id_,
        "object": "event",
        "type": type_,
        "created": int(now.timestamp()),
        "timestamp": now.isoformat(),
        "livemode": False,
        "data": {
            "object": {
                "id": payment.id,
                "object": "payment",
                "user_id": payment.user_id,
                "amount": str(payment.amount),
                "currency": payment.currency,
                "status": payment.status,
                "description": payment.description,
                "created_at": payment.created_at.isoformat(),
                "updated_at": payment.updated_at.isoformat(),
            }
        },
    }
    return {
        "id": id_,
        "account_id": payment.account_id,
        "payment_id": payment.id,
        "type": type_,
        "body": json.dumps(body, separators=(",", ":"), ensure_ascii=False),
    }
