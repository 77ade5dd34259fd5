"""What a measurement reads from the database."""

from collections.abc import Sequence

from shared.db import Database
from shared.schema import DEFAULT_ACCOUNT


async def settled_at(database: Database, events: Sequence[str]) -> dict[str, float]:
    """Unix seconds at which events of the default account were written, by id."""
    rows = await database.fetch(
        """
        SELECT id, extract(epoch FROM created_at)::float8 AS at
          FROM events
         WHERE account_id = $1 AND id = ANY($2::text[])
        """,
        DEFAULT_ACCOUNT,
        events,
    )
    return {row["id"]: row["at"] for row in rows}
