"""The types of events that a merchant can hear of; an endpoint subscribes to some, or to `*`."""

from typing import Final

PAYMENT_PROCESSING: Final = "payment.processing"
PAYMENT_COMPLETED: Final = "payment.completed"
PAYMENT_FAILED: Final = "payment.failed"
REFUND_COMPLETED: Final = "refund.completed"
REFUND_FAILED: Final = "refund.failed"
ENDPOINT_DISABLED: Final = "webhook_endpoint.disabled"
ENDPOINT_TEST: Final = "webhook_endpoint.test"
"""Sent to one endpoint when it is asked for; nobody subscribes to it."""

EVENT_TYPES: Final = (
    PAYMENT_PROCESSING,
    PAYMENT_COMPLETED,
    PAYMENT_FAILED,
    REFUND_COMPLETED,
    REFUND_FAILED,
    ENDPOINT_DISABLED,
)
EVERY_TYPE: Final = "*"
