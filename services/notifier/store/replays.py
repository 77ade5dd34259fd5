"""Replays, step by step."""

from services.notifier.store.opening import DELIVERY_ID
from shared.db import Database, Rows
from shared.messages import Item


async def find_replays(database: Database, *, most_due: int) -> list[Item]:
    """Replays that can go on: their endpoints are enabled, and have fewer than `most_due`
    deliveries that are due. Ends those whose endpoint was deleted."""
    rows = await database.fetch(
        """
        WITH orphaned AS (
            UPDATE replays
               SET finished_at = now(), canceled = true, updated_at = now()
              FROM webhook_endpoints AS e
             WHERE replays.finished_at IS NULL
               AND e.account_id = replays.account_id AND e.id = replays.endpoint_id
               AND e.deleted_at IS NOT NULL
        )
        SELECT replays.account_id, replays.id
          FROM replays
          JOIN webhook_endpoints AS e
            ON e.account_id = replays.account_id AND e.id = replays.endpoint_id,
               LATERAL (SELECT count(*) AS n
                          FROM (SELECT 1
                                  FROM deliveries AS d
                                 WHERE d.account_id = replays.account_id
                                   AND d.endpoint_id = replays.endpoint_id
                                   AND d.next_attempt_at <= now()
                                 LIMIT $1) AS first_due) AS due
         WHERE finished_at IS NULL AND e.deleted_at IS NULL AND e.disabled_at IS NULL
           AND due.n < $1
         ORDER BY replays.account_id, replays.id
        """,
        most_due,
    )
    return [Item(**row) for row in rows]


async def advance_replay(rows: Rows, replay: Item, *, limit: int) -> Item | None:
    """Have up to `limit` events of a replay sent once more, behind its cursor, which moves with
    them in this one commit; returns the endpoint, or None when another notifier is at it.

    Deliveries become due like any retry: they are claimed, numbered and fenced like any.
    """
    row = await rows.fetchrow(
        f"""
        WITH job AS (
            SELECT * FROM replays
             WHERE account_id = $1 AND id = $2 AND finished_at IS NULL
               FOR UPDATE SKIP LOCKED
        ), walked AS (
            SELECT walked.*
              FROM job,
                   LATERAL (SELECT events.account_id, events.id, type, events.endpoint_id AS about
                              FROM events
                             WHERE events.account_id = job.account_id
                               AND events.id > job.cursor AND events.id < job.stop_before
                             ORDER BY events.id
                             LIMIT $3) AS walked
        ), wanted AS (
            SELECT walked.account_id, walked.id AS event_id, job.endpoint_id,
                   {DELIVERY_ID.format(event="walked.id", endpoint="job.endpoint_id")} AS id
              FROM walked, job
             WHERE type = ANY(job.types) AND about IS DISTINCT FROM job.endpoint_id
        ), first AS (
            INSERT INTO deliveries (account_id, id, event_id, endpoint_id, status, next_attempt_at)
            SELECT wanted.account_id, wanted.id, event_id, wanted.endpoint_id, 'retrying', now()
              FROM wanted, job
             WHERE NOT only_dead
             ORDER BY wanted.account_id, wanted.id
                ON CONFLICT DO NOTHING
            RETURNING id
        ), ended AS (
            SELECT d.account_id, d.id
              FROM wanted
              JOIN deliveries AS d USING (account_id, id), job
             WHERE d.status = 'dead' OR (d.status = 'delivered' AND NOT only_dead)
             ORDER BY d.account_id, d.id
               FOR UPDATE OF d SKIP LOCKED
        ), again AS (
            UPDATE deliveries
               SET status = 'retrying', next_attempt_at = now(), dead_at = NULL, updated_at = now()
              FROM ended
             WHERE deliveries.account_id = ended.account_id AND deliveries.id = ended.id
            RETURNING deliveries.id
        )
        UPDATE replays
           SET cursor = coalesce((SELECT max(id) FROM walked), job.cursor),
               sent_first = replays.sent_first + (SELECT count(*) FROM first),
               sent_again = replays.sent_again + (SELECT count(*) FROM again),
               passed_over = replays.passed_over + (SELECT count(*) FROM wanted)
                             - (SELECT count(*) FROM first) - (SELECT count(*) FROM again),
               finished_at = CASE WHEN (SELECT count(*) FROM walked) < $3 THEN now() END,
               updated_at = now()
          FROM job
         WHERE replays.account_id = job.account_id AND replays.id = job.id
        RETURNING replays.account_id, replays.endpoint_id AS id
        """,  # noqa: S608 - made of constants
        replay.account_id,
        replay.id,
        limit,
    )
    return Item(**row) if row else None
