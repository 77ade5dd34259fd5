"""Statements that two services share: on the outbox, and on the schema itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.db import Connection, Database, Rows
from shared.event import Event
from shared.messages import CLOSING, EVENTS, encode_event, opening
from shared.topology import EVENTS as EVENTS_EXCHANGE


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A committed message that the broker may not have yet. `headers` is JSON text or None."""

    id: int
    exchange: str
    routing_key: str
    body: str
    headers: str | None = None


NUMBERED_BODY: Final = """left(event_body, -1) || ',"sequence":' || sequence || '}'"""
"""The bytes that are stored and sent: an event's body, and in it the number that it was given."""


async def insert_event(
    transaction: Connection, event: Event, *, endpoint_id: str | None = None
) -> OutboxRow:
    """Tell of one event, under the account's next number; returns the message.

    `endpoint_id` is that of the endpoint which it is about, and which does not hear of it.
    """
    row = await transaction.fetchrow(
        f"""
        WITH numbered AS (
            INSERT INTO event_sequences (account_id, last) VALUES ($1, 1)
                ON CONFLICT (account_id) DO UPDATE SET last = event_sequences.last + 1
            RETURNING last AS sequence
        ), told AS (
            INSERT INTO events (account_id, id, type, object_id, endpoint_id, sequence, body)
            SELECT $1, $2, $3, $4, $5, sequence, {NUMBERED_BODY}
              FROM numbered, (SELECT $6::text AS event_body) AS event
        )
        INSERT INTO outbox (exchange, routing_key, body) VALUES ($7, $3, $8)
        RETURNING id, exchange, routing_key, body
        """,  # noqa: S608 - made of constants
        event.account_id,
        event.id,
        event.type,
        event.object_id,
        endpoint_id,
        event.body,
        EVENTS_EXCHANGE,
        opening(EVENTS) + encode_event(event.account_id, event.id, event.type) + CLOSING,
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING has a row
    return OutboxRow(**row)


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
