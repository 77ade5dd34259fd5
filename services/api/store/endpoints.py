"""Webhook endpoints, and what each is subscribed to from when until when."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from services.api.store.pages import Span, fetch_page
from shared.db import Database, Rows
from shared.webhook_endpoint import COLUMNS, WebhookEndpoint

_ENDPOINT: Final = f"""
    SELECT * FROM (
        SELECT {COLUMNS}
          FROM webhook_endpoints AS e
          JOIN webhook_subscriptions AS s
            ON s.account_id = e.account_id AND s.endpoint_id = e.id AND until IS NULL
         WHERE deleted_at IS NULL
    ) AS endpoints"""  # noqa: S608 - COLUMNS is a constant


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
    custom_headers: str | None = None,
    custom_header_names: Sequence[str] = (),
) -> WebhookEndpoint:
    """Subscribe an endpoint from now on. `secret` and `custom_headers` are sealed."""
    row = await rows.fetchrow(
        f"""
        WITH e AS (
            INSERT INTO webhook_endpoints (account_id, id, url, description, metadata, secret,
                                           custom_headers, custom_header_names)
            VALUES ($1, $2, $3, $5, $6::jsonb, $7, $8, $9)
            RETURNING *
        ), s AS (
            INSERT INTO webhook_subscriptions (account_id, endpoint_id, enabled_events)
            VALUES ($1, $2, $4)
            RETURNING enabled_events
        )
        SELECT {COLUMNS} FROM e, s
        """,  # noqa: S608 - COLUMNS is a constant
        account_id,
        id_,
        url,
        enabled_events,
        description,
        metadata,
        secret,
        custom_headers,
        custom_header_names,
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
    custom_headers: str | None,
    custom_header_names: Sequence[str] | None,
    disabled: bool | None,
) -> bool:
    """Change what is not None; False when there is no such endpoint.

    `metadata` is JSON text that is merged into what is there; empty values remove their keys.
    `custom_headers` is sealed, and changes when its names are not None. An endpoint that is enabled
    again starts with a clean slate.
    """
    result = await rows.execute(
        """
        UPDATE webhook_endpoints
           SET url = coalesce($3, url),
               description = coalesce($4, description),
               metadata = CASE WHEN $5::text IS NULL THEN metadata ELSE (
                   SELECT coalesce(jsonb_object_agg(key, value), '{}')
                     FROM jsonb_each_text(metadata || $5::text::jsonb)
                    WHERE value <> '') END,
               custom_headers = CASE WHEN $7::text[] IS NULL THEN custom_headers ELSE $6 END,
               custom_header_names = coalesce($7, custom_header_names),
               failing_since = CASE WHEN $8 IS NOT DISTINCT FROM false AND disabled_at IS NOT NULL
                                    THEN NULL ELSE failing_since END,
               disabled_reason = CASE $8::boolean WHEN false THEN NULL
                                      WHEN true THEN coalesce(disabled_reason, 'by request')
                                      ELSE disabled_reason END,
               disabled_at = CASE $8::boolean WHEN false THEN NULL
                                  WHEN true THEN coalesce(disabled_at, now())
                                  ELSE disabled_at END
         WHERE account_id = $1 AND id = $2 AND deleted_at IS NULL
        """,
        account_id,
        id_,
        url,
        description,
        metadata,
        custom_headers,
        custom_header_names,
        disabled,
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
