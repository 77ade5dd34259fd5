"""One module for each resource, with its operations. They translate HTTP, and decide nothing."""

from typing import Final

from services.api.routes import (
    balance,
    charges,
    deliveries,
    events,
    payments,
    probes,
    refunds,
    replays,
    webhook_endpoints,
)

PROBES: Final = probes.OPERATIONS
OPERATIONS: Final = (
    *payments.OPERATIONS,
    *charges.OPERATIONS,
    *refunds.OPERATIONS,
    *balance.OPERATIONS,
    *events.OPERATIONS,
    *webhook_endpoints.OPERATIONS,
    *deliveries.OPERATIONS,
    *replays.OPERATIONS,
)
