"""The notifier's statements. One function, one statement, named by what it does."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.notifier.policy import Dead, Delivered, Result, Retry, Verdict
from shared.db import Database
from shared.messages import CLOSING, DELIVERIES, Item, encode_item, opening
from shared.states import DELIVERY_MOVES, DeliveryStatus, sources
from shared.store import OutboxRow
from shared.topology import DEAD, NOTIFIER_DEAD, REASON_HEADER, RETRIES, rung

OPEN_STATES = sources(DELIVERY_MOVES, DeliveryStatus.DELIVERED)


@dataclass(frozen=True, slots=True)
class Target:
    """One delivery that is not finished. `wait` is the seconds until it may be attempted."""

    item: Item
    endpoint_id: str
    wait: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that this process alone may make, numbered, and all that it needs."""

    account_id: str
    delivery_id: str
    number: int
    event_id: str
    body: str
    url: str
    secrets: Sequence[str]
    """Sealed; the newest first."""
    endpoint_deleted: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt, what it brought, and what follows."""

    attempt: Attempt
    result: Result
    verdict: Verdict


# The deliveries that events call for: one for each endpoint that was subscribed when the event
# happened. The id is made from those of the event and the endpoint, so that making it again is
# making the same.
_CALLED_FOR = """
    SELECT events.account_id, events.id AS event_id, endpoint_id,
           events.created_at,
           'dlv_' || substr(events.id, 5, 16)
                  || substr(md5(events.id || endpoint_id), 1, 16) AS id
      FROM {events} AS events
      JOIN webhook_subscriptions AS subscription
        ON subscription.account_id = events.account_id
       AND subscription.since <= events.created_at
       AND (subscription.until IS NULL OR subscription.until > events.created_at)
       AND subscription.enabled_events && ARRAY['*', events.type]
"""


async def open_deliveries(
    database: Database, items: Sequence[Item]
) -> dict[str, list[Target] | None]:
    """Make the deliveries that events call for, where they are not there already.

    Returns, for each event id, its unfinished deliveries; None for an event that does not exist.
    """
    rows = await database.fetch(
        f"""
        WITH input AS (
            SELECT * FROM unnest($1::text[], $2::text[]) AS i (account_id, id)
        ), happened AS (
            SELECT events.account_id, events.id, events.type, events.created_at
              FROM input JOIN events USING (account_id, id)
        ), called_for AS (
            {_CALLED_FOR.format(events="happened")}
        ), opened AS (
            INSERT INTO deliveries (account_id, id, event_id, endpoint_id)
            SELECT account_id, id, event_id, endpoint_id
              FROM called_for
             ORDER BY account_id, id
                ON CONFLICT DO NOTHING
            RETURNING account_id, id
        )
        SELECT happened.account_id, happened.id AS event_id, called_for.id AS delivery_id,
               called_for.endpoint_id, opened.id IS NOT NULL AS is_new,
               deliveries.status,
               extract(epoch FROM greatest(deliveries.lease_until, deliveries.next_attempt_at)
                                  - now())::float8 AS wait
          FROM happened
          LEFT JOIN called_for
            ON called_for.account_id = happened.account_id AND called_for.event_id = happened.id
          LEFT JOIN opened
            ON opened.account_id = called_for.account_id AND opened.id = called_for.id
          LEFT JOIN deliveries
            ON deliveries.account_id = called_for.account_id AND deliveries.id = called_for.id
        """,  # noqa: S608 - made of constants
        [item.account_id for item in items],
        [item.id for item in items],
    )
    found: dict[str, list[Target] | None] = {item.id: None for item in items}
    for row in rows:
        targets = found[row["event_id"]]
        if targets is None:
            targets = found[row["event_id"]] = []
        if row["is_new"] or row["status"] in OPEN_STATES:
            item = Item(row["account_id"], row["delivery_id"])
            targets.append(Target(item, row["endpoint_id"], max(row["wait"] or 0.0, 0.0)))
    return found


async def look_up_targets(database: Database, items: Sequence[Item]) -> dict[str, Target]:
    """The unfinished among these deliveries, by id."""
    rows = await database.fetch(
        """
        SELECT account_id, id, endpoint_id,
               extract(epoch FROM greatest(lease_until, next_attempt_at) - now())::float8 AS wait
          FROM unnest($1::text[], $2::text[]) AS input (account_id, id)
          JOIN deliveries USING (account_id, id)
         WHERE status = ANY($3::text[])
        """,
        [item.account_id for item in items],
        [item.id for item in items],
        OPEN_STATES,
    )
    return {
        row["id"]: Target(
            Item(row["account_id"], row["id"]), row["endpoint_id"], max(row["wait"] or 0.0, 0.0)
        )
        for row in rows
    }


async def claim_attempts(
    database: Database, items: Sequence[Item], *, lease: float
) -> dict[str, Attempt]:
    """Number an attempt for each delivery that is due and that nobody is attempting, and lease it.

    The number and the lease are the fence: whoever has them may send, for `lease` seconds. A lease
    that ran out is an attempt whose outcome nobody recorded; it is written down as such, so that
    numbers have no gaps.
    """
    rows = await database.fetch(
        """
        WITH input AS (
            SELECT * FROM unnest($1::text[], $2::text[]) AS i (account_id, id)
        ), due AS (
            SELECT deliveries.account_id, deliveries.id, attempts, lease_until,
                   deliveries.updated_at
              FROM input JOIN deliveries USING (account_id, id)
             WHERE status = ANY($3::text[])
               AND (next_attempt_at IS NULL OR next_attempt_at <= now())
               AND (lease_until IS NULL OR lease_until <= now())
             ORDER BY deliveries.account_id, deliveries.id
               FOR UPDATE OF deliveries SKIP LOCKED
        ), lost AS (
            INSERT INTO delivery_attempts (account_id, delivery_id, number, started_at, error)
            SELECT account_id, id, attempts, updated_at,
                   'the notifier stopped before the outcome was known'
              FROM due
             WHERE lease_until IS NOT NULL
                ON CONFLICT DO NOTHING
        ), claimed AS (
            UPDATE deliveries
               SET attempts = deliveries.attempts + 1,
                   lease_until = now() + make_interval(secs => $4),
                   updated_at = now()
              FROM due
             WHERE deliveries.account_id = due.account_id AND deliveries.id = due.id
            RETURNING deliveries.account_id, deliveries.id, deliveries.attempts,
                      deliveries.event_id, deliveries.endpoint_id
        )
        SELECT claimed.account_id, claimed.id AS delivery_id, claimed.attempts AS number,
               claimed.event_id, events.body, webhook_endpoints.url,
               ARRAY[secret] || CASE WHEN previous_secrets_until > now()
                                     THEN previous_secrets ELSE '{}' END AS secrets,
               webhook_endpoints.deleted_at IS NOT NULL AS endpoint_deleted
          FROM claimed
          JOIN events ON events.account_id = claimed.account_id AND events.id = claimed.event_id
          JOIN webhook_endpoints
            ON webhook_endpoints.account_id = claimed.account_id
           AND webhook_endpoints.id = claimed.endpoint_id
        """,
        [item.account_id for item in items],
        [item.id for item in items],
        OPEN_STATES,
        lease,
    )
    return {row["delivery_id"]: Attempt(**row) for row in rows}


async def record_attempts(database: Database, finished: Sequence[Finished]) -> list[OutboxRow]:
    """Write down attempts and what follows from them; returns the messages.

    A delivery moves only while it is open and this attempt is its latest: a late answer to a lease
    that another has taken over changes nothing.
    """
    rows = await database.fetch(
        """
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $3::integer[], $4::timestamptz[], $5::integer[],
                          $6::integer[], $7::text[], $8::text[], $9::text[], $10::timestamptz[],
                          $11::text[], $12::text[], $13::text[])
                AS i (account_id, id, number, started_at, duration_ms, status_code, response_start,
                      error, status, next_attempt_at, rung, headers, item)
        ), recorded AS (
            INSERT INTO delivery_attempts
                   (account_id, delivery_id, number, started_at, duration_ms, status_code,
                    response_start, error)
            SELECT account_id, id, number, started_at, duration_ms, status_code,
                   response_start, error
              FROM input
                ON CONFLICT DO NOTHING
        ), moved AS (
            UPDATE deliveries
               SET status = input.status,
                   next_attempt_at = input.next_attempt_at,
                   dead_at = CASE input.status WHEN 'dead' THEN now() END,
                   lease_until = NULL,
                   updated_at = now()
              FROM input
             WHERE deliveries.account_id = input.account_id AND deliveries.id = input.id
               AND deliveries.status = ANY($14::text[])
               AND deliveries.attempts = input.number
               AND deliveries.lease_until IS NOT NULL
            RETURNING deliveries.account_id, deliveries.status, input.id, rung, headers, item
        ), counted AS (
            INSERT INTO counts (account_id, object, currency, status, number, amount)
            SELECT account_id, 'webhook', '', status, count(*), 0
              FROM moved
             GROUP BY account_id, status
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body, headers)
            SELECT $15, rung, $16 || string_agg(item, ',') || $17, NULL
              FROM moved
             WHERE status = 'retrying'
             GROUP BY rung
             UNION ALL
            SELECT $18, $19, $16 || item || $17, headers
              FROM moved
             WHERE status = 'dead'
            RETURNING id, exchange, routing_key, body, headers
        )
        SELECT * FROM queued
        """,
        [f.attempt.account_id for f in finished],
        [f.attempt.delivery_id for f in finished],
        [f.attempt.number for f in finished],
        [f.result.started_at for f in finished],
        [f.result.duration_ms for f in finished],
        [f.result.status_code for f in finished],
        [f.result.response_start for f in finished],
        [f.result.error for f in finished],
        [_status(f.verdict) for f in finished],
        [f.verdict.at if isinstance(f.verdict, Retry) else None for f in finished],
        [rung(f.verdict.rung) if isinstance(f.verdict, Retry) else None for f in finished],
        [_headers(f.verdict) for f in finished],
        [encode_item(Item(f.attempt.account_id, f.attempt.delivery_id)) for f in finished],
        OPEN_STATES,
        RETRIES,
        opening(DELIVERIES),
        CLOSING,
        DEAD,
        NOTIFIER_DEAD,
    )
    return [OutboxRow(**row) for row in rows]


def _status(verdict: Verdict) -> DeliveryStatus:
    match verdict:
        case Delivered():
            return DeliveryStatus.DELIVERED
        case Retry():
            return DeliveryStatus.RETRYING
        case Dead():
            return DeliveryStatus.DEAD


def _headers(verdict: Verdict) -> str | None:
    return json.dumps({REASON_HEADER: verdict.reason}) if isinstance(verdict, Dead) else None


async def find_overdue(database: Database, *, grace: float, limit: int) -> list[Item]:
    """Deliveries that should have been attempted `grace` seconds ago, longest overdue first."""
    rows = await database.fetch(
        """
        SELECT account_id, id
          FROM deliveries
         WHERE next_attempt_at < now() - make_interval(secs => $1)
           AND (lease_until IS NULL OR lease_until <= now())
         ORDER BY next_attempt_at
         LIMIT $2
        """,
        grace,
        limit,
    )
    return [Item(**row) for row in rows]


async def find_never_attempted(database: Database, *, older_than: float, limit: int) -> list[Item]:
    """Deliveries still pending after `older_than` seconds whose attempt nobody is making.

    Moves the sweep mark up to the oldest pending delivery.
    """
    rows = await database.fetch(
        """
        WITH since AS (
            SELECT coalesce((SELECT mark FROM sweep_marks WHERE name = 'deliveries'),
                            '-infinity') AS mark,
                   now() - make_interval(secs => $1) AS cutoff
        ), pending AS (
            SELECT account_id, id, created_at, lease_until
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
        )
        SELECT account_id, id FROM pending WHERE lease_until IS NULL OR lease_until <= now()
        """,
        older_than,
        limit,
    )
    return [Item(**row) for row in rows]


async def find_untold_events(database: Database, *, older_than: float, limit: int) -> list[Item]:
    """Events older than `older_than` seconds that lack a delivery which they call for.

    Moves the sweep mark up to the oldest of them.
    """
    rows = await database.fetch(
        f"""
        WITH since AS (
            SELECT coalesce((SELECT mark FROM sweep_marks WHERE name = 'events'),
                            '-infinity') AS mark,
                   now() - make_interval(secs => $1) AS cutoff
        ), recent AS (
            SELECT account_id, id, type, created_at
              FROM events
             WHERE created_at >= (SELECT mark FROM since)
               AND created_at < (SELECT cutoff FROM since)
        ), called_for AS (
            {_CALLED_FOR.format(events="recent")}
        ), untold AS (
            SELECT DISTINCT account_id, event_id AS id, created_at
              FROM called_for
             WHERE NOT EXISTS (SELECT 1 FROM deliveries
                                WHERE deliveries.account_id = called_for.account_id
                                  AND deliveries.id = called_for.id)
             ORDER BY created_at
             LIMIT $2
        ), marked AS (
            INSERT INTO sweep_marks (name, mark)
            SELECT 'events', coalesce((SELECT min(created_at) FROM untold),
                                      (SELECT cutoff FROM since))
                ON CONFLICT (name) DO UPDATE SET mark = greatest(sweep_marks.mark, excluded.mark)
        )
        SELECT account_id, id FROM untold
        """,  # noqa: S608 - made of constants
        older_than,
        limit,
    )
    return [Item(**row) for row in rows]
