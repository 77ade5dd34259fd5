"""From an event to the deliveries that it calls for."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from services.notifier.attempt import Attempt
from shared.db import Database, Row
from shared.messages import Item
from shared.patience import persist
from shared.states import DELIVERY_MOVES, DeliveryStatus, sources

OPEN_STATES = sources(DELIVERY_MOVES, DeliveryStatus.DELIVERED)


class Target(Struct, frozen=True):
    """One delivery that is not finished. `wait` is the seconds until it may be attempted."""

    item: Item
    endpoint: Item
    status: DeliveryStatus
    wait: float
    attempt: Attempt | None = None
    """The first, where it was claimed."""


DELIVERY_ID: Final = "'dlv_' || substr({event}, 5, 16) || substr(md5({event} || {endpoint}), 1, 16)"
"""A delivery's id is made from those of its event and endpoint, so that making it again is making
the same; and it sorts by when the event happened."""

SECRETS: Final = """ARRAY[e.secret] || CASE WHEN e.previous_secrets_until > now()
                                           THEN e.previous_secrets ELSE '{}' END"""
"""What an endpoint's webhooks are signed with, the newest first."""

# Whether an event calls for a delivery to an endpoint: it was subscribed when the event happened.
_SUBSCRIBED: Final = """
           subscription.account_id = events.account_id
       AND subscription.since <= events.created_at
       AND (subscription.until IS NULL OR subscription.until > events.created_at)
       AND subscription.enabled_events && ARRAY['*', events.type]
       AND events.type <> 'webhook_endpoint.test'
       AND subscription.endpoint_id IS DISTINCT FROM events.endpoint_id
"""


_ID: Final = DELIVERY_ID.format(event="events.id", endpoint="subscription.endpoint_id")


async def open_deliveries(
    database: Database,
    items: Sequence[Item],
    *,
    lease: float | None = None,
    refusing: Sequence[Item] = (),
) -> dict[str, list[Target] | None]:
    """Make the deliveries that events call for, where they are not there already.

    With a `lease`, in seconds, their first attempts are the caller's, as if they had been claimed.
    Those for endpoints that are `refusing` go to the endpoint's backlog: due, but not attempted.
    What is for a disabled endpoint is held. Returns, for each event id, its unfinished deliveries;
    None for an event that does not exist.
    """
    # What is made is looked for with IN, which hashes it: as a join of the parts of one statement,
    # whose sizes Postgres cannot know, each row would be compared with each.
    rows = await database.fetch(
        f"""
        WITH addressed AS MATERIALIZED (
            SELECT events.account_id, events.id AS event_id, events.body,
                   subscription.endpoint_id, {_ID} AS id,
                   e.url, e.custom_headers, e.failing_since, {SECRETS} AS secrets,
                   CASE WHEN e.disabled_at IS NOT NULL THEN 'held'
                        WHEN (e.account_id, e.id) IN
                             (SELECT * FROM unnest($3::text[], $4::text[])) THEN 'retrying'
                        ELSE 'pending' END AS status
              FROM unnest($1::text[], $2::text[]) AS input (account_id, id)
              JOIN events USING (account_id, id)
              LEFT JOIN (webhook_subscriptions AS subscription
                         JOIN webhook_endpoints AS e
                           ON e.account_id = subscription.account_id
                          AND e.id = subscription.endpoint_id)
                ON {_SUBSCRIBED}
        ), opened AS (
            INSERT INTO deliveries (account_id, id, event_id, endpoint_id, status, held_at,
                                    next_attempt_at, lease_until, attempts)
            SELECT account_id, id, event_id, endpoint_id, status,
                   CASE status WHEN 'held' THEN now() END,
                   CASE status WHEN 'retrying' THEN now() END,
                   CASE status WHEN 'pending' THEN now() + make_interval(secs => $5::float8) END,
                   CASE WHEN status = 'pending' AND $5 IS NOT NULL THEN 1 ELSE 0 END
              FROM addressed
             WHERE endpoint_id IS NOT NULL
             ORDER BY account_id, id
                ON CONFLICT DO NOTHING
            RETURNING id
        )
        SELECT account_id, event_id, endpoint_id, id AS delivery_id, status, body,
               url, secrets, custom_headers, failing_since,
               now() + make_interval(secs => $5) AS lease_until,
               id IN (SELECT id FROM opened) AS is_new
          FROM addressed
        """,  # noqa: S608 - made of constants
        [item.account_id for item in items],
        [item.id for item in items],
        [endpoint.account_id for endpoint in refusing],
        [endpoint.id for endpoint in refusing],
        lease,
    )
    there = [
        Item(row["account_id"], row["delivery_id"])
        for row in rows
        if row["endpoint_id"] is not None and not row["is_new"]
    ]
    # The others are claimed by now: their answer must not be lost with this one.
    unfinished = await persist(look_up_targets, database, there) if there else {}
    found: dict[str, list[Target] | None] = {item.id: None for item in items}
    for row in rows:
        targets = found[row["event_id"]]
        if targets is None:
            targets = found[row["event_id"]] = []
        if row["is_new"] and row["status"] in OPEN_STATES:
            targets.append(_new_target(row))
        elif row["delivery_id"] in unfinished:
            targets.append(unfinished[row["delivery_id"]])
    return found


def _new_target(row: Row) -> Target:
    item = Item(row["account_id"], row["delivery_id"])
    status = DeliveryStatus(row["status"])
    attempt = None
    if row["lease_until"] is not None and status is DeliveryStatus.PENDING:
        attempt = Attempt(
            account_id=item.account_id,
            delivery_id=item.id,
            number=1,
            lease_until=row["lease_until"],
            event_id=row["event_id"],
            body=row["body"],
            endpoint_id=row["endpoint_id"],
            url=row["url"],
            secrets=row["secrets"],
            custom_headers=row["custom_headers"],
            failing_since=row["failing_since"],
        )
    return Target(item, Item(item.account_id, row["endpoint_id"]), status, 0.0, attempt)


async def look_up_targets(database: Database, items: Sequence[Item]) -> dict[str, Target]:
    """The unfinished among these deliveries, by id."""
    rows = await database.fetch(
        """
        SELECT account_id, id, endpoint_id, status,
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
            item=Item(row["account_id"], row["id"]),
            endpoint=Item(row["account_id"], row["endpoint_id"]),
            status=DeliveryStatus(row["status"]),
            wait=max(row["wait"] or 0.0, 0.0),
        )
        for row in rows
    }


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
            SELECT account_id, id, type, endpoint_id, created_at
              FROM events
             WHERE created_at >= (SELECT mark FROM since)
               AND created_at < (SELECT cutoff FROM since)
        ), called_for AS (
            SELECT events.account_id, events.id AS event_id, events.created_at, {_ID} AS id
              FROM recent AS events
              JOIN webhook_subscriptions AS subscription ON {_SUBSCRIBED}
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
