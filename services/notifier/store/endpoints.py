"""The health of endpoints, and what is held while one is disabled."""

from collections.abc import Sequence
from datetime import datetime

from services.notifier.store.backlog import ENDPOINTS_WITH
from shared.db import Connection, Database
from shared.messages import Item
from shared.webhook_endpoint import COLUMNS, WebhookEndpoint


async def mark_failing(database: Database, endpoints: Sequence[Item], at: datetime) -> None:
    """Note that endpoints have failed since `at`, unless they have for longer."""
    await database.execute(
        """
        WITH failing AS (
            SELECT account_id, id
              FROM unnest($1::text[], $2::text[]) AS input (account_id, id)
              JOIN webhook_endpoints USING (account_id, id)
             WHERE failing_since IS NULL
             ORDER BY account_id, id
               FOR UPDATE OF webhook_endpoints
        )
        UPDATE webhook_endpoints
           SET failing_since = $3
          FROM failing
         WHERE webhook_endpoints.account_id = failing.account_id
           AND webhook_endpoints.id = failing.id
        """,
        [endpoint.account_id for endpoint in endpoints],
        [endpoint.id for endpoint in endpoints],
        at,
    )


async def mark_recovered(database: Database, endpoints: Sequence[Item]) -> None:
    """Note that endpoints took something."""
    await database.execute(
        """
        WITH well AS (
            SELECT account_id, id
              FROM unnest($1::text[], $2::text[]) AS input (account_id, id)
              JOIN webhook_endpoints USING (account_id, id)
             WHERE failing_since IS NOT NULL
             ORDER BY account_id, id
               FOR UPDATE OF webhook_endpoints
        )
        UPDATE webhook_endpoints
           SET failing_since = NULL
          FROM well
         WHERE webhook_endpoints.account_id = well.account_id AND webhook_endpoints.id = well.id
        """,
        [endpoint.account_id for endpoint in endpoints],
        [endpoint.id for endpoint in endpoints],
    )


async def disable_endpoint(
    transaction: Connection,
    endpoint: Item,
    *,
    reason: str,
    url: str,
    failing_since: datetime | None,
) -> WebhookEndpoint | None:
    """Disable an endpoint that is still at `url` and has failed since then, or was not known to.

    None when it is disabled or deleted, or was moved or has taken something since.
    """
    row = await transaction.fetchrow(
        f"""
        UPDATE webhook_endpoints AS e
           SET disabled_at = now(), disabled_reason = $3
          FROM webhook_subscriptions AS s
         WHERE e.account_id = $1 AND e.id = $2
           AND disabled_at IS NULL AND deleted_at IS NULL
           AND e.url = $4 AND ($5::timestamptz IS NULL OR e.failing_since = $5)
           AND s.account_id = e.account_id AND s.endpoint_id = e.id AND until IS NULL
        RETURNING {COLUMNS}
        """,  # noqa: S608 - COLUMNS is a constant
        endpoint.account_id,
        endpoint.id,
        reason,
        url,
        failing_since,
    )
    return WebhookEndpoint(**row) if row else None


async def hold_deliveries(database: Database, *, limit: int) -> int:
    """Hold what waits for disabled endpoints, up to `limit` for each; returns how many."""
    held: int = await database.fetchval(
        """
        WITH waiting AS (
            SELECT d.account_id, d.id
              FROM webhook_endpoints AS e,
                   LATERAL (SELECT account_id, id
                              FROM deliveries
                             WHERE account_id = e.account_id AND endpoint_id = e.id
                               AND next_attempt_at IS NOT NULL
                               AND lease_until IS NULL
                             ORDER BY account_id, endpoint_id, next_attempt_at, id
                             LIMIT $1
                               FOR UPDATE SKIP LOCKED) AS d
             WHERE e.disabled_at IS NOT NULL AND e.deleted_at IS NULL
        ), held AS (
            UPDATE deliveries
               SET status = 'held', held_at = now(), next_attempt_at = NULL, updated_at = now()
              FROM waiting
             WHERE deliveries.account_id = waiting.account_id AND deliveries.id = waiting.id
            RETURNING 1
        )
        SELECT count(*) FROM held
        """,
        limit,
    )
    return held


async def release_deliveries(database: Database, *, limit: int) -> list[Item]:
    """Put what is held for endpoints that are enabled again into their backlogs, in order of time,
    up to `limit` of each; returns the endpoint of each."""
    rows = await database.fetch(
        f"""
        WITH RECURSIVE {ENDPOINTS_WITH.format(kind="held_at IS NOT NULL")}, waiting AS (
            SELECT d.account_id, d.id
              FROM concerned
              JOIN webhook_endpoints AS e
                ON e.account_id = concerned.account_id AND e.id = concerned.endpoint_id,
                   LATERAL (SELECT account_id, id
                              FROM deliveries
                             WHERE account_id = e.account_id AND endpoint_id = e.id
                               AND held_at IS NOT NULL
                             ORDER BY account_id, endpoint_id, id
                             LIMIT $1
                               FOR UPDATE SKIP LOCKED) AS d
             WHERE e.disabled_at IS NULL OR e.deleted_at IS NOT NULL
        )
        UPDATE deliveries
           SET status = 'retrying', next_attempt_at = now(), held_at = NULL, updated_at = now()
          FROM waiting
         WHERE deliveries.account_id = waiting.account_id AND deliveries.id = waiting.id
        RETURNING deliveries.account_id, deliveries.endpoint_id AS id
        """,  # noqa: S608 - made of constants
        limit,
    )
    return [Item(**row) for row in rows]
