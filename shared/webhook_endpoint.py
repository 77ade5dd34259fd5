"""A webhook endpoint as rows hold it and as the world sees it: in answers and in events."""

import base64
import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NotRequired

from typing_extensions import TypedDict

from shared.payment import iso

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - not a secret, but how one starts
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """An endpoint and the subscription that is in force; `metadata` is JSON text."""

    account_id: str
    id: str
    url: str
    enabled_events: list[str]
    description: str | None
    metadata: str
    custom_header_names: list[str]
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    created_at: datetime


COLUMNS: Final = """e.account_id, e.id, e.url, s.enabled_events, e.description,
    e.metadata::text AS metadata, e.custom_header_names, e.failing_since, e.disabled_at,
    e.disabled_reason, e.created_at"""
"""Of `webhook_endpoints AS e` and `webhook_subscriptions AS s`."""


class WebhookEndpointObject(TypedDict):
    """Where events are sent. The secret is shown when it is made, and never again; so are the
    values of custom headers. `failing_since` is the first failure since the last success; both
    times are RFC 3339."""

    id: str
    object: Literal["webhook_endpoint"]
    url: str
    enabled_events: list[str]
    description: str | None
    metadata: dict[str, str]
    custom_header_names: list[str]
    status: Literal["enabled", "disabled"]
    disabled_at: str | None
    disabled_reason: str | None
    failing_since: str | None
    livemode: bool
    created: int
    secret: NotRequired[str]


def webhook_endpoint_object(endpoint: WebhookEndpoint) -> WebhookEndpointObject:
    """The public form of an endpoint."""
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "url": endpoint.url,
        "enabled_events": endpoint.enabled_events,
        "description": endpoint.description,
        "metadata": json.loads(endpoint.metadata),
        "custom_header_names": endpoint.custom_header_names,
        "status": "enabled" if endpoint.disabled_at is None else "disabled",
        "disabled_at": iso(endpoint.disabled_at) if endpoint.disabled_at else None,
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": iso(endpoint.failing_since) if endpoint.failing_since else None,
        "livemode": False,
        "created": int(endpoint.created_at.timestamp()),
    }


def new_signing_secret() -> str:
    """A secret to sign with (Standard Webhooks: 24 to 64 random bytes)."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
