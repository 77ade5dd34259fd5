"""From an event to the deliveries that it calls for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.db import Database, Row
from shared.messages import Item
from shared.states import DELIVERY_MOVES, DeliveryStatus, sources

OPEN_STATES = sources(DELIVERY_MOVES, DeliveryStatus.DELIVERED)


@dataclass(frozen=True, slots=True)
class Target:
    """One delivery that is not finished. `wait` is the seconds until it may be attempted."""

    item: Item
    endpoint: Item
    status: DeliveryStatus
    wait: float


DELIVERY_ID: Final = "'dlv_' || substr({event}, 5, 16) || substr(md5({event} || {endpoint}), 1, 16)"
"""A delivery's id is made from those of its event and endpoint, so that making it again is making
the same; and it sorts by when the event happened."""

# The deliveries that events call for: one for each endpoint that was subscribed when the event
# happened.
_CALLED_FOR: Final = """
    SELECT events.account_id, events.id AS event_id, subscription.endpoint_id,
           events.created_at,
           {id} AS id
      FROM {events} AS events
      JOIN webhook_subscriptions AS subscription
        ON subscription.account_id = events.account_id
       AND subscription.since <= events.created_at
       AND (subscription.until IS NULL OR subscription.until > events.created_at)
       AND subscription.enabled_events && ARRAY['*', events.type]
       AND events.type <> 'webhook_endpoint.test'
       AND subscription.endpoint_id IS DISTINCT FROM events.endpoint_id
"""


_ID: Final = DELIVERY_ID.format(event="events.id", endpoint="subscription.endpoint_id")


async def open_deliveries(
    database: Database, items: Sequence[Item], *, refusing: Sequence[Item] = ()
) -> dict[str, list[Target] | None]:
    """Make the deliveries that events call for, where they are not there already.

    Those for endpoints that are `refusing` go to the endpoint's backlog: due, but not attempted.
    What is for a disabled endpoint is held. Returns, for each event id, its unfinished deliveries;
    None for an event that does not exist.
    """
    rows = await database.fetch(
        f"""
        WITH input AS (
            SELECT * FROM unnest($1::text[], $2::text[]) AS i (account_id, id)
        ), happened AS (
            SELECT events.account_id, events.id, events.type, events.endpoint_id, events.created_at
              FROM input JOIN events USING (account_id, id)
        ), called_for AS (
            {_CALLED_FOR.format(events="happened", id=_ID)}
        ), opened AS (
            INSERT INTO deliveries (account_id, id, event_id, endpoint_id, status, held_at,
                                    next_attempt_at)
            SELECT called_for.account_id, called_for.id, event_id, endpoint_id,
                   initial.status,
                   CASE initial.status WHEN 'held' THEN now() END,
                   CASE initial.status WHEN 'retrying' THEN now() END
              FROM called_for
              JOIN webhook_endpoints
                ON webhook_endpoints.account_id = called_for.account_id
               AND webhook_endpoints.id = called_for.endpoint_id,
                   LATERAL (SELECT CASE
                                WHEN disabled_at IS NOT NULL THEN 'held'
                                WHEN (called_for.account_id, called_for.endpoint_id) IN
                                     (SELECT * FROM unnest($3::text[], $4::text[])) THEN 'retrying'
                                ELSE 'pending' END AS status) AS initial
             ORDER BY called_for.account_id, called_for.id
                ON CONFLICT DO NOTHING
            RETURNING account_id, id, status
        )
        SELECT happened.account_id, happened.id AS event_id, called_for.id AS delivery_id,
               called_for.endpoint_id, coalesce(opened.status, deliveries.status) AS status,
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
        [endpoint.account_id for endpoint in refusing],
        [endpoint.id for endpoint in refusing],
    )
    found: dict[str, list[Target] | None] = {item.id: None for item in items}
    for row in rows:
        targets = found[row["event_id"]]
        if targets is None:
            targets = found[row["event_id"]] = []
        if row["status"] in OPEN_STATES:
            targets.append(_target(row, row["delivery_id"]))
    return found


def _target(row: Row, id_: str) -> Target:
    return Target(
        item=Item(row["account_id"], id_),
        endpoint=Item(row["account_id"], row["endpoint_id"]),
        status=DeliveryStatus(row["status"]),
        wait=max(row["wait"] or 0.0, 0.0),
    )


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
    return {row["id"]: _target(row, row["id"]) for row in rows}


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
            {_CALLED_FOR.format(events="recent", id=_ID)}
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
