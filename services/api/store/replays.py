"""Replays: asked for here, made by the notifier. And the test of an endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.api.store.pages import Span, fetch_page
from shared.db import Connection, Database, Rows
from shared.event import Event
from shared.ids import id_at
from shared.messages import CLOSING, DELIVERIES, Item, encode_item, opening
from shared.topology import COMMANDS


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay and how far it is."""

    id: str
    endpoint_id: str
    since: datetime
    until: datetime
    types: list[str]
    only_dead: bool
    events: int
    sent_again: int
    sent_first: int
    passed_over: int
    created_at: datetime
    finished_at: datetime | None
    canceled: bool


_COLUMNS: Final = """id, endpoint_id, since, until, types, only_dead, events, sent_again,
    sent_first, passed_over, created_at, finished_at, canceled"""


async def count_events(
    rows: Rows,
    account_id: str,
    endpoint_id: str,
    *,
    since: datetime,
    until: datetime,
    types: Sequence[str],
    only_dead: bool,
) -> int:
    """How many events a replay is about: those of which a delivery is open are passed over."""
    if only_dead:  # a delivery's id begins like its event's: with when it happened
        prefix, statement = (
            "dlv",
            """
            SELECT count(*)
              FROM deliveries AS d
              JOIN events AS e ON e.account_id = d.account_id AND e.id = d.event_id
             WHERE d.account_id = $1 AND d.endpoint_id = $5 AND dead_at IS NOT NULL
               AND d.id >= $2 AND d.id < $3
               AND e.type = ANY($4::text[])
            """,
        )
    else:
        prefix, statement = (
            "evt",
            """
            SELECT coalesce(sum(n), 0)::bigint
              FROM unnest($4::text[]) AS wanted (type),
                   LATERAL (SELECT count(*) AS n
                              FROM events
                             WHERE account_id = $1 AND events.type = wanted.type
                               AND id >= $2 AND id < $3
                               AND endpoint_id IS DISTINCT FROM $5) AS of_type
            """,
        )
    count: int = await rows.fetchval(
        statement, account_id, id_at(prefix, since), id_at(prefix, until), types, endpoint_id
    )
    return count


async def insert_replay(
    rows: Rows,
    *,
    account_id: str,
    id_: str,
    endpoint_id: str,
    since: datetime,
    until: datetime,
    types: Sequence[str],
    only_dead: bool,
    events: int,
) -> Replay:
    """A replay for the notifier to take up."""
    row = await rows.fetchrow(
        f"""
        INSERT INTO replays (account_id, id, endpoint_id, since, until, types, only_dead, events,
                             cursor, stop_before)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        RETURNING {_COLUMNS}
        """,  # noqa: S608 - a constant
        account_id,
        id_,
        endpoint_id,
        since,
        until,
        types,
        only_dead,
        events,
        id_at("evt", since),
        id_at("evt", until),
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING has a row
    return Replay(**row)


async def find_replay(rows: Rows, account_id: str, id_: str) -> Replay | None:
    """One replay of an account."""
    row = await rows.fetchrow(
        f"SELECT {_COLUMNS} FROM replays WHERE account_id = $1 AND id = $2",  # noqa: S608
        account_id,
        id_,
    )
    return Replay(**row) if row else None


async def list_replays(
    database: Database, account_id: str, endpoint_id: str, span: Span
) -> list[Replay]:
    """A part of the replays to one endpoint, newest first."""
    rows = await fetch_page(
        database,
        f"SELECT {_COLUMNS} FROM replays",  # noqa: S608 - a constant
        "rpl",
        account_id,
        span,
        filters={},
        along={"endpoint_id": endpoint_id},
    )
    return [Replay(**row) for row in rows]


async def cancel_replay(rows: Rows, account_id: str, id_: str) -> None:
    """End a replay where it is; one that has ended stays as it is."""
    await rows.execute(
        """
        UPDATE replays SET finished_at = now(), canceled = true, updated_at = now()
         WHERE account_id = $1 AND id = $2 AND finished_at IS NULL
        """,
        account_id,
        id_,
    )


async def insert_test(
    transaction: Connection, event: Event, *, endpoint_id: str, delivery_id: str
) -> None:
    """An event for one endpoint alone, its delivery, and the message that has it attempted.

    It is no part of what happened to the account, so it has no number.
    """
    await transaction.execute(
        """
        WITH told AS (
            INSERT INTO events (account_id, id, type, object_id, endpoint_id, body)
            VALUES ($1, $2, $3, $4, $5, $6)
        ), opened AS (
            INSERT INTO deliveries (account_id, id, event_id, endpoint_id)
            VALUES ($1, $7, $2, $5)
        )
        INSERT INTO outbox (exchange, routing_key, body) VALUES ($8, $9, $10)
        """,
        event.account_id,
        event.id,
        event.type,
        event.object_id,
        endpoint_id,
        event.body,
        delivery_id,
        COMMANDS,
        DELIVERIES,
        opening(DELIVERIES)
        + encode_item(Item(event.account_id, delivery_id, by_hand=True))
        + CLOSING,
    )
