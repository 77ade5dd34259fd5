"""A payment as rows hold it and as the world sees it: in answers and in events."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace
from typing_extensions import TypedDict

from shared.money import to_major
from shared.states import PaymentStatus


class Payment(Struct, frozen=True):
    """One row of `payments`. Amounts are minor units; times are aware, in UTC."""

    account_id: str
    id: str
    amount: int
    currency: str
    customer: str | None
    description: str | None
    metadata: str
    """JSON text of an object of strings."""
    status: PaymentStatus
    created_at: datetime
    updated_at: datetime
    amount_refunded: int = 0
    gateway: str | None = None
    gateway_reference: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    unknown_since: datetime | None = None
    request_fingerprint: bytes | None = None
    request_id: str | None = None
    processed_at: datetime | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Payment":
        """From a row that has at least the columns of this class."""
        return cls(**{**row, "status": PaymentStatus(row["status"])})

    def as_created(self) -> "Payment":
        """This payment at the moment it was accepted: what the first answer showed."""
        return replace(
            self,
            status=PaymentStatus.PENDING,
            updated_at=self.created_at,
            amount_refunded=0,
            failure_code=None,
            failure_message=None,
            processed_at=None,
        )


COLUMNS = """account_id, id, amount, currency, customer, description, metadata::text AS metadata,
    status, created_at, updated_at, amount_refunded, gateway, gateway_reference, failure_code,
    failure_message, unknown_since, request_fingerprint, request_id, processed_at"""


class PaymentObject(TypedDict):
    """The public form of a payment. Amounts are decimals of the currency, and minor units; times
    are RFC 3339."""

    id: str
    object: Literal["payment"]
    user_id: str | None
    amount: str
    amount_minor: int
    currency: str
    status: PaymentStatus
    description: str | None
    metadata: dict[str, str]
    amount_refunded: str
    amount_refunded_minor: int
    failure_code: str | None
    failure_message: str | None
    created_at: str
    updated_at: str
    processed_at: str | None


def payment_object(payment: Payment) -> PaymentObject:
    """The public form of a payment: amounts as exact decimals and as minor units."""
    currency = payment.currency
    return {
        "id": payment.id,
        "object": "payment",
        "user_id": payment.customer,
        "amount": to_major(payment.amount, currency),
        "amount_minor": payment.amount,
        "currency": currency,
        "status": payment.status,
        "description": payment.description,
        "metadata": {} if payment.metadata == "{}" else json.loads(payment.metadata),
        "amount_refunded": to_major(payment.amount_refunded, currency),
        "amount_refunded_minor": payment.amount_refunded,
        "failure_code": payment.failure_code,
        "failure_message": payment.failure_message,
        "created_at": iso(payment.created_at),
        "updated_at": iso(payment.updated_at),
        "processed_at": iso(payment.processed_at) if payment.processed_at else None,
    }


@lru_cache(maxsize=256)  # what is written together has the same time
def iso(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds: 2026-01-31T09:30:00.000000Z."""
    return f"{moment.isoformat(timespec='microseconds')[:26]}Z"
