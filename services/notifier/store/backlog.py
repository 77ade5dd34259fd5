"""What is due at an endpoint and waits in the table: deferred, pulled in order, and found again."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from shared.db import Database
from shared.messages import Item

ENDPOINTS_WITH: Final = """concerned AS (
            (SELECT account_id, endpoint_id
               FROM deliveries
              WHERE {kind}
              ORDER BY account_id, endpoint_id
              LIMIT 1)
             UNION ALL
            SELECT following.account_id, following.endpoint_id
              FROM concerned,
                   LATERAL (SELECT account_id, endpoint_id
                              FROM deliveries
                             WHERE {kind}
                               AND (account_id, endpoint_id)
                                   > (concerned.account_id, concerned.endpoint_id)
                             ORDER BY account_id, endpoint_id
                             LIMIT 1) AS following
        )"""
"""The endpoints that have deliveries of a kind which has an index of its own: a walk from endpoint
to endpoint, one look-up for each."""


_WAITING: Final = """waiting AS (
            SELECT account_id, id
              FROM unnest($1::text[], $2::text[], $3::timestamptz[])
                   AS input (account_id, id, held_until)
              JOIN deliveries USING (account_id, id)
             WHERE (status = 'pending' AND lease_until IS NULL AND held_until IS NULL)
                OR (status IN ('pending', 'retrying') AND lease_until = held_until)
             ORDER BY account_id, id
               FOR UPDATE OF deliveries SKIP LOCKED
        )"""
"""Deliveries whose first attempt was not begun: nobody's, or the caller's, who names the end of its
lease."""


async def defer(database: Database, items: Mapping[Item, datetime | None]) -> None:
    """Put first attempts into their endpoints' backlogs: due, and without spending an attempt.

    `items` have the end of the lease that the caller holds, if it holds one.
    """
    await database.execute(
        f"""
        WITH {_WAITING}
        UPDATE deliveries
           SET status = 'retrying', next_attempt_at = now(), lease_until = NULL,
               attempts = attempts - (lease_until IS NOT NULL)::integer
          FROM waiting
         WHERE deliveries.account_id = waiting.account_id AND deliveries.id = waiting.id
        """,  # noqa: S608 - made of constants
        *_arguments(items),
    )


async def give_up_claims(database: Database, items: Mapping[Item, datetime]) -> None:
    """Let others make first attempts that were claimed and not begun; `items` have the ends of
    their leases."""
    await database.execute(
        f"""
        WITH {_WAITING}
        UPDATE deliveries
           SET lease_until = NULL, attempts = attempts - 1
          FROM waiting
         WHERE deliveries.account_id = waiting.account_id AND deliveries.id = waiting.id
        """,  # noqa: S608 - made of constants
        *_arguments(items),
    )


def _arguments(items: Mapping[Item, datetime | None] | Mapping[Item, datetime]) -> list[Any]:
    keys = sorted(items)
    return [
        [item.account_id for item in keys],
        [item.id for item in keys],
        [items[item] for item in keys],
    ]


async def find_due(database: Database, asked: Sequence[tuple[Item, int]]) -> dict[Item, list[Item]]:
    """What is due at endpoints and nobody attempts, the longest due first; of each endpoint as many
    as are asked for."""
    rows = await database.fetch(
        """
        SELECT due.account_id, due.endpoint_id, due.id
          FROM unnest($1::text[], $2::text[], $3::integer[])
               AS input (account_id, endpoint_id, number),
               LATERAL (
                   SELECT d.account_id, d.endpoint_id, d.id
                     FROM deliveries AS d
                    WHERE d.account_id = input.account_id AND d.endpoint_id = input.endpoint_id
                      AND d.next_attempt_at <= now()
                      AND (d.lease_until IS NULL OR d.lease_until <= now())
                    ORDER BY d.next_attempt_at, d.id
                    LIMIT input.number) AS due
        """,
        [endpoint.account_id for endpoint, _ in asked],
        [endpoint.id for endpoint, _ in asked],
        [number for _, number in asked],
    )
    found: dict[Item, list[Item]] = {}
    for row in rows:
        endpoint = Item(row["account_id"], row["endpoint_id"])
        found.setdefault(endpoint, []).append(Item(row["account_id"], row["id"]))
    return found


async def find_endpoints_overdue(database: Database, *, grace: float) -> list[Item]:
    """Endpoints of which something has been due for `grace` seconds and nobody attempts it.

    One with a long backlog costs no more than another.
    """
    rows = await database.fetch(
        f"""
        WITH RECURSIVE {ENDPOINTS_WITH.format(kind="next_attempt_at IS NOT NULL")}
        SELECT account_id, endpoint_id AS id
          FROM concerned
         WHERE EXISTS (SELECT 1
                         FROM deliveries AS d
                        WHERE d.account_id = concerned.account_id
                          AND d.endpoint_id = concerned.endpoint_id
                          AND d.next_attempt_at < now() - make_interval(secs => $1)
                          AND (d.lease_until IS NULL OR d.lease_until <= now()))
        """,  # noqa: S608 - made of constants
        grace,
    )
    return [Item(**row) for row in rows]


async def defer_lost(database: Database, *, older_than: float, limit: int) -> list[Item]:
    """Put deliveries that are pending after `older_than` seconds, and that nobody attempts, into
    their endpoints' backlogs; returns the endpoint of each.

    Moves the sweep mark up to the oldest pending delivery.
    """
    rows = await database.fetch(
        """
        WITH since AS (
            SELECT coalesce((SELECT mark FROM sweep_marks WHERE name = 'deliveries'),
                            '-infinity') AS mark,
                   now() - make_interval(secs => $1) AS cutoff
        ), pending AS (
            SELECT account_id, id, endpoint_id, created_at, lease_until
              FROM deliveries
             WHERE created_at >= (SELECT mark FROM since)
               AND created_at < (SELECT cutoff FROM since)
               AND status = 'pending'
             ORDER BY created_at
             LIMIT $2
        ), marked AS (
            INSERT INTO sweep_marks (name, mark)
            SELECT 'deliveries', coalesce((SELECT min(created_at) FROM pending),
                                          (SELECT cutoff FROM since))
                ON CONFLICT (name) DO UPDATE SET mark = greatest(sweep_marks.mark, excluded.mark)
        ), lost AS (
            SELECT account_id, id
              FROM pending JOIN deliveries USING (account_id, id)
             WHERE deliveries.status = 'pending'
               AND (deliveries.lease_until IS NULL OR deliveries.lease_until <= now())
             ORDER BY account_id, id
               FOR UPDATE OF deliveries SKIP LOCKED
        )
        UPDATE deliveries
           SET status = 'retrying', next_attempt_at = now()
          FROM lost
         WHERE deliveries.account_id = lost.account_id AND deliveries.id = lost.id
        RETURNING deliveries.account_id, deliveries.endpoint_id AS id
        """,
        older_than,
        limit,
    )
    return [Item(**row) for row in rows]
