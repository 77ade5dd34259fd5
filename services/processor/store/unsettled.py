"""Payments and refunds that no message brings to an end: unknown outcomes, and what was lost."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from services.processor.settlement import S, StillUnknown
from shared.db import Database
from shared.messages import PAYMENTS, REFUNDS, Item
from shared.topology import COMMANDS

Table = Literal["payments", "refunds"]
KEPT_CALLS: Final = 100
"""Questions about one payment or refund that are kept on record: the last."""
_KINDS: Final[dict[Table, str]] = {"payments": PAYMENTS, "refunds": REFUNDS}


async def mark_unknown(
    database: Database, table: Table, unknown: Sequence[StillUnknown[S]]
) -> None:
    """Note that the gateway was asked about these just now, and did not answer."""
    await database.execute(
        f"""
        UPDATE {table}
           SET unknown_since = coalesce(unknown_since, now()),
               updated_at = now(),
               gateway_calls = CASE WHEN jsonb_array_length(gateway_calls) < {KEPT_CALLS}
                                    THEN gateway_calls ELSE gateway_calls - 0 END
                               || input.call::jsonb
          FROM unnest($1::text[], $2::text[], $3::text[]) AS input (account_id, id, call)
         WHERE {table}.account_id = input.account_id AND {table}.id = input.id
           AND {table}.status = 'processing'
        """,  # noqa: S608 - one of two
        [u.subject.account_id for u in unknown],
        [u.subject.id for u in unknown],
        [u.call for u in unknown],
    )


async def find_unknown(
    database: Database,
    table: Table,
    *,
    now: datetime,
    shortest: float,
    longest: float,
    limit: int,
) -> list[Item]:
    """Those of unknown outcome that are due to be asked about at `now`.

    The wait is as long as the outcome had been unknown when it was last asked for, from `shortest`
    to `longest` seconds, so questions come ever more rarely: it doubles.
    """
    rows = await database.fetch(
        f"""
        SELECT account_id, id
          FROM {table}
         WHERE unknown_since IS NOT NULL
           AND updated_at + least(greatest(updated_at - unknown_since,
                                           make_interval(secs => $2)),
                                  make_interval(secs => $3)) <= $1
         ORDER BY updated_at
         LIMIT $4
        """,  # noqa: S608 - one of two
        now,
        shortest,
        longest,
        limit,
    )
    return [Item(row["account_id"], row["id"]) for row in rows]


async def find_oldest_open(
    database: Database, table: Table, *, older_than: float
) -> datetime | None:
    """When the oldest open work was made, of that which is `older_than` seconds old; None if there
    is none. Moves the sweep mark up to it, so the next look costs what is new.

    Work of unknown outcome is not meant: the janitor asks about it.
    """
    made: datetime | None = await database.fetchval(
        f"""
        WITH since AS (
            SELECT coalesce((SELECT mark FROM sweep_marks WHERE name = '{table}'),
                            '-infinity') AS mark,
                   now() - make_interval(secs => $1) AS cutoff
        ), oldest AS (
            SELECT min(created_at) AS made
              FROM {table}
             WHERE created_at >= (SELECT mark FROM since)
               AND created_at < (SELECT cutoff FROM since)
               AND status IN ('pending', 'processing')
               AND unknown_since IS NULL
        ), marked AS (
            INSERT INTO sweep_marks (name, mark)
            SELECT '{table}', coalesce(made, cutoff) FROM oldest, since
                ON CONFLICT (name) DO UPDATE SET mark = greatest(sweep_marks.mark, excluded.mark)
        )
        SELECT made FROM oldest
        """,  # noqa: S608 - one of two
        older_than,
    )
    return made


async def queue_lost(
    database: Database, table: Table, *, older_than: float, limit: int
) -> list[str]:
    """Queue open work again that no message may be left of, oldest first; returns the ids.

    Work is due when it is `older_than` seconds old, and then each time its age has doubled since it
    was last queued: what merely waits long is not queued over and over. Looks from the mark that
    `find_oldest_open` has left.
    """
    rows = await database.fetch(
        f"""
        WITH since AS (
            SELECT coalesce((SELECT mark FROM sweep_marks WHERE name = '{table}'),
                            '-infinity') AS mark,
                   now() - make_interval(secs => $1) AS cutoff
        ), open AS (
            SELECT account_id, id, created_at
              FROM {table}
             WHERE created_at >= (SELECT mark FROM since)
               AND created_at < (SELECT cutoff FROM since)
               AND status IN ('pending', 'processing')
               AND unknown_since IS NULL
             ORDER BY created_at
             LIMIT $2
        ), lost AS (
            UPDATE {table}
               SET queued_again_at = now()
              FROM open
             WHERE {table}.account_id = open.account_id AND {table}.id = open.id
               AND {table}.status IN ('pending', 'processing')
               AND ({table}.queued_again_at IS NULL
                    OR now() - {table}.queued_again_at
                       > {table}.queued_again_at - {table}.created_at)
            RETURNING {table}.account_id, {table}.id, {table}.created_at
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $3, $4, json_build_object(
                       'v', 1, 'type', $4::text,
                       'items', json_agg(json_build_object('id', id, 'account_id', account_id)))
              FROM (SELECT *, row_number() OVER (ORDER BY created_at) / 100 AS envelope
                      FROM lost) AS numbered
             GROUP BY envelope
        )
        SELECT id FROM lost
        """,  # noqa: S608 - one of two
        older_than,
        limit,
        COMMANDS,
        _KINDS[table],
    )
    return [row["id"] for row in rows]
