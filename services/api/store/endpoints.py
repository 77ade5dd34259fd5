"""Webhook endpoints, and what each is subscribed to from when until when."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.api.store.pages import Span, fetch_page
from shared.db import Database, Rows


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """An endpoint and the subscription that is in force; `metadata` is JSON text."""

    account_id: str
    id: str
    url: str
    enabled_events: list[str]
    description: str | None
    metadata: str
    created_at: datetime


_ENDPOINT: Final = """
    SELECT * FROM (
        SELECT e.account_id, e.id, url, enabled_events, description, metadata::text AS metadata,
               created_at
          FROM webhook_endpoints AS e
          JOIN webhook_subscriptions AS s
            ON s.account_id = e.account_id AND s.endpoint_id = e.id AND until IS NULL
         WHERE deleted_at IS NULL
    ) AS endpoints"""


async def insert_webhook_endpoint(
    rows: Rows,
    *,
    account_id: str,
    id_: str,
    url: str,
    enabled_events: list[str],
    description: str | None,
    metadata: str,
    secret: str,
) -> WebhookEndpoint:
    """Subscribe an endpoint from now on."""
    row = await rows.fetchrow(
        """
        WITH endpoint AS (
            INSERT INTO webhook_endpoints (account_id, id, url, description, metadata, secret)
            VALUES ($1, $2, $3, $5, $6::jsonb, $7)
            RETURNING account_id, id, url, description, metadata::text AS metadata, created_at
        ), subscription AS (
            INSERT INTO webhook_subscriptions (account_id, endpoint_id, enabled_events)
            VALUES ($1, $2, $4)
            RETURNING enabled_events
        )
        SELECT * FROM endpoint, subscription
        """,
        account_id,
        id_,
        url,
        enabled_events,
        description,
        metadata,
        secret,
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING has a row
    return WebhookEndpoint(**row)


async def find_webhook_endpoint(rows: Rows, account_id: str, id_: str) -> WebhookEndpoint | None:
    """One endpoint of an account that is not deleted."""
    row = await rows.fetchrow(f"{_ENDPOINT} WHERE account_id = $1 AND id = $2", account_id, id_)
    return WebhookEndpoint(**row) if row else None


async def list_webhook_endpoints(
    database: Database, account_id: str, span: Span
) -> list[WebhookEndpoint]:
    """A part of an account's endpoints, newest first."""
    rows = await fetch_page(database, _ENDPOINT, "we", account_id, span, filters={})
    return [WebhookEndpoint(**row) for row in rows]


async def update_webhook_endpoint(
    rows: Rows,
    account_id: str,
    id_: str,
    *,
    url: str | None,
    description: str | None,
    metadata: str | None,
) -> bool:
    """Change what is not None; False when there is no such endpoint.

    `metadata` is JSON text that is merged into what is there; empty values remove their keys.
    """
    result = await rows.execute(
        """
        UPDATE webhook_endpoints
           SET url = coalesce($3, url),
               description = coalesce($4, description),
               metadata = CASE WHEN $5::text IS NULL THEN metadata ELSE (
                   SELECT coalesce(jsonb_object_agg(key, value), '{}')
                     FROM jsonb_each_text(metadata || $5::text::jsonb)
                    WHERE value <> '') END
         WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL
        """,
        account_id,
        id_,
        url,
        description,
        metadata,
    )
    return result == "UPDATE 1"


async def rotate_secret(
    rows: Rows, account_id: str, id_: str, *, secret: str, overlap: float
) -> bool:
    """Sign with `secret` from now on, and for `overlap` seconds with those before too, of which the
    last three are kept; False when there is no such endpoint."""
    result = await rows.execute(
        """
        UPDATE webhook_endpoints
           SET previous_secrets = CASE
                   WHEN $4 <= 0 THEN '{}'
                   WHEN previous_secrets_until > now()
                   THEN (ARRAY[secret] || previous_secrets)[1:3]
                   ELSE ARRAY[secret] END,
               previous_secrets_until = now() + make_interval(secs => $4),
               secret = $3
         WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL
        """,
        account_id,
        id_,
        secret,
        overlap,
    )
    return result == "UPDATE 1"


async def end_subscription(rows: Rows, account_id: str, id_: str) -> datetime:
    """End the subscription that is in force; returns when.

    Call it in the transaction that has locked the endpoint's row: the clock is then later than any
    other change of this endpoint, where the transaction's own time might not be.
    """
    ended: datetime = await rows.fetchval(
        """
        UPDATE webhook_subscriptions SET until = clock_timestamp()
         WHERE account_id = $1 AND endpoint_id = $2 AND until IS NULL
        RETURNING until
        """,
        account_id,
        id_,
    )
    return ended


async def begin_subscription(
    rows: Rows, account_id: str, id_: str, enabled_events: list[str], since: datetime
) -> None:
    """Subscribe an endpoint to `enabled_events` from `since` on."""
    await rows.execute(
        """
        INSERT INTO webhook_subscriptions (account_id, endpoint_id, enabled_events, since)
        VALUES ($1, $2, $3, $4)
        """,
        account_id,
        id_,
        enabled_events,
        since,
    )


async def delete_webhook_endpoint(rows: Rows, account_id: str, id_: str) -> bool:
    """Delete an endpoint; False when there is none. End its subscription in the same transaction,
    by a statement of its own: only that sees what a change that was under way has left."""
    result = await rows.execute(
        """
        UPDATE webhook_endpoints SET deleted_at = now()
         WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL
        """,
        account_id,
        id_,
    )
    return result == "UPDATE 1"
