"""Signatures over the bytes that are sent: Standard Webhooks 1.0, and Stripe's scheme beside it.

https://www.standardwebhooks.com: HMAC-SHA256 over `id.timestamp.body` with the decoded secret.
https://docs.stripe.com/webhooks/signature: HMAC-SHA256 over `timestamp.body` with its text.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from shared.webhook_endpoint import SECRET_PREFIX


def signature_headers(
    secrets: Sequence[str], event_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers that prove who sent `body`, in an attempt at `timestamp` (Unix seconds), to
    whoever knows one of `secrets`: the newest, and while a rotation lasts the one before."""
    standard = [_standard(secret, event_id, timestamp, body) for secret in secrets]
    stripe = [f"v1={_stripe(secret, timestamp, body)}" for secret in secrets]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(standard),
        "Stripe-Signature": ",".join([f"t={timestamp}", *stripe]),
    }


def _standard(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _stripe(secret: str, timestamp: int, body: bytes) -> str:
    message = f"{timestamp}.".encode() + body
    return hmac.digest(secret.encode(), message, hashlib.sha256).hex()
