"""The states of every object and the moves between them: the one place that says so.

CHECK constraints in deploy/migrations mirror the names; every UPDATE says the state it expects.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar


class PaymentStatus(StrEnum):
    """What the world may know about a payment."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class RefundStatus(StrEnum):
    """What the world may know about a refund."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class DeliveryStatus(StrEnum):
    """What became of telling one endpoint about one event."""

    PENDING = "pending"
    RETRYING = "retrying"
    HELD = "held"
    DELIVERED = "delivered"
    DEAD = "dead"


PAYMENT_MOVES: Final[Mapping[PaymentStatus, frozenset[PaymentStatus]]] = MappingProxyType(
    {
        PaymentStatus.PENDING: frozenset({PaymentStatus.PROCESSING}),
        PaymentStatus.PROCESSING: frozenset({PaymentStatus.COMPLETED, PaymentStatus.FAILED}),
        PaymentStatus.COMPLETED: frozenset(),
        PaymentStatus.FAILED: frozenset(),
    }
)

REFUND_MOVES: Final[Mapping[RefundStatus, frozenset[RefundStatus]]] = MappingProxyType(
    {
        RefundStatus.PENDING: frozenset({RefundStatus.PROCESSING}),
        RefundStatus.PROCESSING: frozenset({RefundStatus.COMPLETED, RefundStatus.FAILED}),
        RefundStatus.COMPLETED: frozenset(),
        RefundStatus.FAILED: frozenset(),
    }
)

DELIVERY_MOVES: Final[Mapping[DeliveryStatus, frozenset[DeliveryStatus]]] = MappingProxyType(
    {
        DeliveryStatus.PENDING: frozenset(
            {
                DeliveryStatus.DELIVERED,
                DeliveryStatus.RETRYING,
                DeliveryStatus.HELD,
                DeliveryStatus.DEAD,
            }
        ),
        DeliveryStatus.RETRYING: frozenset(
            {
                DeliveryStatus.DELIVERED,
                DeliveryStatus.RETRYING,
                DeliveryStatus.HELD,
                DeliveryStatus.DEAD,
            }
        ),
        # While its endpoint is disabled.
        DeliveryStatus.HELD: frozenset({DeliveryStatus.RETRYING}),
        # By hand: a delivery can be made once more, whatever became of it.
        DeliveryStatus.DELIVERED: frozenset({DeliveryStatus.RETRYING}),
        DeliveryStatus.DEAD: frozenset({DeliveryStatus.RETRYING}),
    }
)

S = TypeVar("S", PaymentStatus, RefundStatus, DeliveryStatus)


def sources(moves: Mapping[S, frozenset[S]], target: S) -> list[S]:
    """The states from which `target` may be reached, sorted: what an UPDATE must expect."""
    return sorted(state for state, targets in moves.items() if target in targets)
