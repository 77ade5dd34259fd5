"""A refund as rows hold it and as the world sees it: in answers and in events."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace
from typing_extensions import TypedDict

from shared.states import RefundStatus


class Refund(Struct, frozen=True):
    """One row of `refunds`. Amounts are minor units; times are aware, in UTC."""

    account_id: str
    id: str
    payment_id: str
    amount: int
    currency: str
    payment_reference: str | None
    """What the gateway calls the payment."""
    reason: str | None
    metadata: str
    """JSON text of an object of strings."""
    status: RefundStatus
    created_at: datetime
    updated_at: datetime
    gateway: str | None = None
    gateway_reference: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    unknown_since: datetime | None = None
    request_fingerprint: bytes | None = None
    request_id: str | None = None
    processed_at: datetime | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Refund":
        """From a row that has the columns of this class."""
        return cls(**{**row, "status": RefundStatus(row["status"])})

    def as_created(self) -> "Refund":
        """This refund at the moment it was accepted: what the first answer showed."""
        return replace(
            self,
            status=RefundStatus.PENDING,
            updated_at=self.created_at,
            failure_code=None,
            failure_message=None,
            processed_at=None,
        )


COLUMNS: Final = """account_id, id, payment_id, amount, currency, payment_reference, reason,
    metadata::text AS metadata, status, created_at, updated_at, gateway, gateway_reference,
    failure_code, failure_message, unknown_since, request_fingerprint, request_id, processed_at"""

SEEN_AS: Final[dict[RefundStatus, Literal["pending", "succeeded", "failed"]]] = {
    RefundStatus.PENDING: "pending",
    RefundStatus.PROCESSING: "pending",
    RefundStatus.COMPLETED: "succeeded",
    RefundStatus.FAILED: "failed",
}
"""What Stripe's clients know of a refund's state."""


class RefundObject(TypedDict):
    """The public form of a refund, as Stripe's clients know it. Amounts are minor units."""

    id: str
    object: Literal["refund"]
    amount: int
    balance_transaction: str | None
    charge: str
    created: int
    currency: str
    failure_message: str | None
    failure_reason: str | None
    metadata: dict[str, str]
    reason: str | None
    status: Literal["pending", "succeeded", "failed"]


def refund_object(refund: Refund, balance_transaction: str | None) -> RefundObject:
    """The public form; `balance_transaction` is the id of its transfer, when it has one."""
    return {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "balance_transaction": balance_transaction,
        "charge": refund.payment_id,
        "created": int(refund.created_at.timestamp()),
        "currency": refund.currency.lower(),
        "failure_message": refund.failure_message,
        "failure_reason": refund.failure_code,
        "metadata": json.loads(refund.metadata),
        "reason": refund.reason,
        "status": SEEN_AS[refund.status],
    }
