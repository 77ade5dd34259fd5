"""Dead deliveries, brought back."""

from collections.abc import Sequence

from shared.db import Database
from shared.messages import Item


async def revive_deliveries(database: Database, items: Sequence[Item]) -> dict[str, str]:
    """Make dead deliveries due now; returns the state of each that exists, by id, as it is then.

    Those whose endpoint was deleted stay dead.
    """
    rows = await database.fetch(
        """
        WITH found AS (
            SELECT d.account_id, d.id, d.status, e.deleted_at
              FROM unnest($1::text[], $2::text[]) AS input (account_id, id)
              JOIN deliveries AS d USING (account_id, id)
              JOIN webhook_endpoints AS e
                ON e.account_id = d.account_id AND e.id = d.endpoint_id
             ORDER BY d.account_id, d.id
               FOR UPDATE OF d
        ), revived AS (
            UPDATE deliveries
               SET status = 'retrying', next_attempt_at = now(), dead_at = NULL,
                   updated_at = now()
              FROM found
             WHERE deliveries.account_id = found.account_id AND deliveries.id = found.id
               AND found.status = 'dead' AND found.deleted_at IS NULL
            RETURNING deliveries.id, deliveries.status
        )
        SELECT found.id, coalesce(revived.status, found.status) AS status
          FROM found LEFT JOIN revived USING (id)
        """,
        [item.account_id for item in items],
        [item.id for item in items],
    )
    return {row["id"]: row["status"] for row in rows}
