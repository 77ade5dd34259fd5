"""The payment gateway, as a sandbox: it approves everything after a moment."""

import random
import time

from .config import GATEWAY_LATENCY


def charge(payment_id: str) -> str:
    """Charge a payment; the same payment twice is charged once. Returns the gateway's reference."""
    time.sleep(random.uniform(*GATEWAY_LATENCY))  # noqa: S311 - not a secret
    return f"sandbox_{payment_id}"
