"""Statements that two services share: on the outbox, and on the schema itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.db import Database, Rows


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A committed message that the broker may not have yet. `headers` is JSON text or None."""

    id: int
    exchange: str
    routing_key: str
    body: str
    headers: str | None = None


async def delete_published(rows: Rows, ids: Sequence[int]) -> None:
    """Forget outbox rows whose messages the broker has confirmed."""
    await rows.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", ids)


async def lock_unpublished(rows: Rows, *, older_than: float, limit: int) -> list[OutboxRow]:
    """Take up to `limit` rows older than `older_than` seconds that no other sweeper holds."""
    found = await rows.fetch(
        """
        SELECT id, exchange, routing_key, body, headers
          FROM outbox
         WHERE created_at < now() - make_interval(secs => $1)
         ORDER BY id
         LIMIT $2
           FOR UPDATE SKIP LOCKED
        """,
        older_than,
        limit,
    )
    return [OutboxRow(**row) for row in found]


async def outbox_age(database: Database) -> float:
    """Seconds that the oldest unpublished message has waited; 0 when there is none."""
    age: float = await database.fetchval(
        """
        SELECT coalesce(extract(epoch FROM now() - created_at), 0)::float8
          FROM (SELECT 1) AS one
          LEFT JOIN LATERAL (SELECT created_at FROM outbox ORDER BY id LIMIT 1) AS oldest ON true
        """
    )
    return age


async def find_schema_version(database: Database) -> int | None:
    """The newest migration that was applied; None in a database that has none."""
    if await database.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return None
    version: int | None = await database.fetchval("SELECT max(version) FROM schema_migrations")
    return version
