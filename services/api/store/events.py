"""Events, with how many endpoints have still to hear of each."""

from collections.abc import Sequence
from typing import Final

from services.api.store.pages import Span, fetch_merged_page
from shared.db import Database

_EVENT: Final = """
    SELECT id, body, (SELECT count(*) FROM deliveries
                   WHERE deliveries.account_id = events.account_id
                     AND deliveries.event_id = events.id
                     AND deliveries.status IN ('pending', 'retrying', 'held')) AS pending
      FROM events"""


async def list_events(
    database: Database, account_id: str, span: Span, *, types: Sequence[str] | None
) -> list[tuple[str, int]]:
    """A part of an account's events, newest first: (body, deliveries that are not finished)."""
    # One walk for each type: a plan for several at once may walk past everything else.
    wanted: Sequence[str | None] = types or [None]
    walks = [(span, dict[str, str](), {"type": type_}) for type_ in dict.fromkeys(wanted)]
    rows = await fetch_merged_page(database, _EVENT, "evt", account_id, walks)
    return [(row["body"], row["pending"]) for row in rows]


async def find_event(database: Database, account_id: str, id_: str) -> tuple[str, int] | None:
    """One event of an account: (body, deliveries that are not finished)."""
    row = await database.fetchrow(
        f"{_EVENT} WHERE account_id = $1 AND id = $2",
        account_id,
        id_,
    )
    return (row["body"], row["pending"]) if row else None


async def last_sequence(database: Database, account_id: str) -> int:
    """The number of an account's newest event; 0 when it has none."""
    found = await database.fetchval(
        "SELECT last FROM event_sequences WHERE account_id = $1", account_id
    )
    return found or 0


async def list_events_after(
    database: Database, account_id: str, sequence: int, *, limit: int
) -> list[tuple[int, str, str]]:
    """An account's events behind a number, in order: (number, type, body).

    Numbers are given in the order of commits, so that nothing appears later behind a number that
    was seen.
    """
    rows = await database.fetch(
        """
        SELECT sequence, type, body
          FROM events
         WHERE account_id = $1 AND sequence > $2
         ORDER BY sequence
         LIMIT $3
        """,
        account_id,
        sequence,
        limit,
    )
    return [(row["sequence"], row["type"], row["body"]) for row in rows]
