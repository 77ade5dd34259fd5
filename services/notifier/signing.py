"""Signatures over the bytes that are sent: Standard Webhooks 1.0, and Stripe's scheme beside it.

https://www.standardwebhooks.com: HMAC-SHA256 over `id.timestamp.body` with the decoded secret.
https://docs.stripe.com/webhooks/signature: HMAC-SHA256 over `timestamp.body` with its text.
"""

import base64
import hashlib
import hmac
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - not a secret, but how one starts


def signature_headers(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that prove who sent `body`, in an attempt at `timestamp` (Unix seconds)."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    standard = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    stripe = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(standard).decode()}",
        "Stripe-Signature": f"t={timestamp},v1={stripe.hexdigest()}",
    }
