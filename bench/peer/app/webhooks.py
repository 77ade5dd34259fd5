"""One request to an endpoint, signed as Standard Webhooks 1.0 and Stripe do it."""

import base64
import hashlib
import hmac
import time

import requests

from .domain import Attempt, Outgoing
from .models import utc_now

TIMEOUT = 10.0

# One a process, which keeps its connections open. Neither proxies nor passwords of the environment
# are for merchants' servers.
session = requests.Session()
session.trust_env = False


def signature_headers(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that prove who sent `body` at `timestamp` (Unix seconds)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    standard = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    stripe = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(standard).decode()}",
        "Stripe-Signature": f"t={timestamp},v1={stripe.hexdigest()}",
    }


def send(outgoing: Outgoing) -> Attempt:
    """Send it once. A fault is an attempt without a status."""
    started_at, started = utc_now(), time.monotonic()
    body = outgoing.body.encode()
    headers = signature_headers(outgoing.secret, outgoing.event_id, int(time.time()), body)
    status_code = error = None
    try:
        response = session.post(
            outgoing.url,
            data=body,
            headers={"Content-Type": "application/json", **headers},
            timeout=TIMEOUT,
            allow_redirects=False,
        )
        status_code = response.status_code
    except requests.RequestException as fault:
        error = str(fault)[:500]
    return Attempt(started_at, round((time.monotonic() - started) * 1000), status_code, error)
