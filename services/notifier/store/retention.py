"""Forgetting what was told long ago."""

from datetime import datetime

from shared.db import Database
from shared.ids import id_at

MARK = "pruned events"
"""The sweep mark before which events may be missing."""


async def list_accounts(database: Database) -> list[str]:
    """The ids of all accounts."""
    return [row["id"] for row in await database.fetch("SELECT id FROM accounts ORDER BY id")]


async def told_before(database: Database) -> datetime | None:
    """The moment before which every event is known to have its deliveries."""
    mark: datetime | None = await database.fetchval(
        "SELECT mark FROM sweep_marks WHERE name = 'events'"
    )
    return mark


async def mark_pruned(database: Database, before: datetime) -> None:
    """Say that events from before a moment may be missing from now on."""
    await database.execute(
        """
        INSERT INTO sweep_marks (name, mark) VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET mark = greatest(sweep_marks.mark, excluded.mark)
        """,
        MARK,
        before,
    )


async def prune_events(
    database: Database, account_id: str, *, after: str, before: datetime, limit: int
) -> tuple[str | None, int]:
    """Delete an account's events from before a moment, with their deliveries and attempts.

    Looks at up to `limit` behind the id `after`, and keeps those of which a delivery is open.
    Returns the last id that was looked at, None when there was none, and how many were deleted.
    """
    row = await database.fetchrow(
        """
        WITH old AS (
            SELECT id FROM events
             WHERE account_id = $1 AND id > $2 AND id < $3
             ORDER BY id
             LIMIT $4
        ), told AS (
            SELECT d.id, d.event_id, d.status
              FROM old JOIN deliveries AS d ON d.account_id = $1 AND d.event_id = old.id
             ORDER BY d.id
               FOR UPDATE OF d
        ), done AS (
            SELECT old.id FROM old
             WHERE NOT EXISTS (SELECT 1 FROM told
                                WHERE told.event_id = old.id
                                  AND told.status IN ('pending', 'retrying', 'held'))
        ), attempts AS (
            DELETE FROM delivery_attempts AS a
             USING told, done
             WHERE told.event_id = done.id AND a.account_id = $1 AND a.delivery_id = told.id
        ), ended AS (
            DELETE FROM deliveries AS d
             USING told, done
             WHERE told.event_id = done.id AND d.account_id = $1 AND d.id = told.id
        ), deleted AS (
            DELETE FROM events AS e
             USING done
             WHERE e.account_id = $1 AND e.id = done.id
            RETURNING 1
        )
        SELECT (SELECT max(id) FROM old) AS last, (SELECT count(*) FROM deleted) AS deleted
        """,
        account_id,
        after,
        id_at("evt", before),
        limit,
    )
    assert row is not None  # noqa: S101 - aggregates have a row
    return row["last"], row["deleted"]


async def prune_replays(database: Database, before: datetime) -> None:
    """Delete replays that ended before a moment."""
    await database.execute("DELETE FROM replays WHERE finished_at < $1", before)
