"""Attempts: claimed by one notifier alone, and recorded with what follows from them."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from services.notifier.attempt import Attempt
from services.notifier.policy import Dead, Delivered, Held, Result, Retry, Verdict
from services.notifier.store.opening import OPEN_STATES, SECRETS
from shared.db import Database
from shared.messages import CLOSING, DELIVERIES, Item, encode_item, opening
from shared.states import DeliveryStatus
from shared.store import OutboxRow
from shared.topology import DEAD, NOTIFIER_DEAD, REASON_HEADER, RETRIES, rung


class Finished(Struct, frozen=True):
    """An attempt, what it brought, and what follows."""

    attempt: Attempt
    result: Result
    verdict: Verdict


async def claim_attempts(
    database: Database, items: Mapping[Item, datetime | None], *, lease: float
) -> dict[str, Attempt]:
    """Number an attempt for each delivery that is due and that nobody is attempting, and lease it.

    `items` have the end of the lease that the caller holds, if it holds one: the attempt that it
    has then begins anew, under its number. The number and the lease are the fence: whoever has them
    may send, for `lease` seconds. A lease that ran out is an attempt whose outcome nobody recorded;
    it is written down as such, so that numbers have no gaps. What is for a disabled endpoint is
    held instead.
    """
    keys = sorted(items)
    rows = await database.fetch(
        f"""
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $5::timestamptz[])
                   AS i (account_id, id, held_until)
        ), due AS (
            SELECT d.account_id, d.id, d.endpoint_id, d.lease_until, d.updated_at, ours,
                   d.attempts - ours::integer AS made
              FROM input JOIN deliveries AS d USING (account_id, id),
                   LATERAL (SELECT coalesce(d.lease_until = held_until, false) AS ours) AS fence
             WHERE d.status = ANY($3::text[])
               AND (d.next_attempt_at IS NULL OR d.next_attempt_at <= now())
               AND (d.lease_until IS NULL OR d.lease_until <= now() OR ours)
             ORDER BY d.account_id, d.id
               FOR UPDATE OF d SKIP LOCKED
        ), addressed AS MATERIALIZED (  -- apart: all at once, an account's rows would be walked
            SELECT due.account_id, due.id, due.made,
                   e.disabled_at IS NOT NULL AND e.deleted_at IS NULL AS disabled,
                   CASE WHEN e.deleted_at IS NOT NULL
                             AND (due.made > 0 OR e.disabled_at IS NOT NULL)
                        THEN 'the endpoint was deleted' END AS abandoned,
                   e.url, e.custom_headers, e.failing_since,
                   {SECRETS} AS secrets
              FROM due
              JOIN webhook_endpoints AS e
                ON e.account_id = due.account_id AND e.id = due.endpoint_id
        ), lost AS (
            INSERT INTO delivery_attempts (account_id, delivery_id, number, started_at, error)
            SELECT account_id, id, made, updated_at,
                   'the notifier stopped before the outcome was known'
              FROM due
             WHERE lease_until IS NOT NULL AND NOT ours
                ON CONFLICT DO NOTHING
        ), held AS (
            UPDATE deliveries
               SET status = 'held', held_at = now(), next_attempt_at = NULL, lease_until = NULL,
                   attempts = made, updated_at = now()
              FROM addressed AS due
             WHERE deliveries.account_id = due.account_id AND deliveries.id = due.id AND disabled
        ), claimed AS (
            UPDATE deliveries
               SET attempts = made + 1,
                   lease_until = now() + make_interval(secs => $4),
                   updated_at = now()
              FROM addressed AS due
             WHERE deliveries.account_id = due.account_id AND deliveries.id = due.id
               AND NOT disabled
            RETURNING deliveries.account_id, deliveries.id AS delivery_id,
                      deliveries.attempts AS number, deliveries.lease_until,
                      deliveries.event_id, deliveries.endpoint_id, url, secrets,
                      custom_headers, failing_since, abandoned
        )
        SELECT claimed.account_id, delivery_id, number, lease_until, claimed.event_id,
               claimed.endpoint_id, url, secrets, custom_headers, failing_since,
               coalesce(events.body, '') AS body,
               CASE WHEN events.id IS NULL THEN 'its event was pruned' ELSE abandoned END
               AS abandoned
          FROM claimed
          LEFT JOIN events
            ON events.account_id = claimed.account_id AND events.id = claimed.event_id
        """,  # noqa: S608 - made of constants
        [item.account_id for item in keys],
        [item.id for item in keys],
        OPEN_STATES,
        lease,
        [items[item] for item in keys],
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
                   held_at = CASE input.status WHEN 'held' THEN now() END,
                   lease_until = NULL,
                   updated_at = now()
              FROM input
             WHERE deliveries.account_id = input.account_id AND deliveries.id = input.id
               AND deliveries.status = ANY($14::text[])
               AND deliveries.attempts = input.number
               AND deliveries.lease_until IS NOT NULL
            RETURNING deliveries.account_id, deliveries.status, input.id, rung, headers, item
        ), counted AS (
            INSERT INTO arrivals (account_id, object, currency, status, number, amount)
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
             WHERE status = 'dead' AND headers IS NOT NULL
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
        case Held():
            return DeliveryStatus.HELD
        case Dead():
            return DeliveryStatus.DEAD


def _headers(verdict: Verdict) -> str | None:
    if isinstance(verdict, Dead) and verdict.has_letter:
        return json.dumps({REASON_HEADER: verdict.reason})
    return None
