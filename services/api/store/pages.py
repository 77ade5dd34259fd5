"""Parts of lists. Every list is a walk along `(account_id, id)`, and ids sort by time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from shared.db import Database, Row
from shared.ids import id_at

CLOCK_SLACK: Final = timedelta(minutes=5)
"""How far the clock of the process that made an id may be from the database's, which dates rows."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a list: `limit` rows older than the id `after`, or the oldest of those newer
    than the id `before`, and made from `since` and before `until`."""

    limit: int
    after: str | None = None
    before: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def fetch_page(
    database: Database,
    select: str,
    prefix: str,
    account_id: str,
    span: Span,
    *,
    filters: Mapping[str, Any],
) -> Sequence[Row]:
    """The rows of `span`, newest first, whose ids begin with `prefix`.

    `filters` are conditions with a place for one value, and those values; None asks for nothing.
    Only what is asked for becomes part of the statement: a condition that says "or no filter" could
    not be looked up in an index by a plan that is kept. Bounds in time are bounds of the id too, so
    that what is outside of them is not walked through.
    """
    conditions, arguments = ["account_id = $1"], [account_id]
    bounds = {
        "id < {}": span.after,
        "id > {}": span.before,
        "id >= {}": span.since and id_at(prefix, span.since - CLOCK_SLACK),
        "id <= {}": span.until and id_at(prefix, span.until + CLOCK_SLACK),
        "created_at >= {}": span.since,
        "created_at < {}": span.until,
    }
    for condition, value in (bounds | dict(filters)).items():
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(f"${len(arguments)}"))
    rows = await database.fetch(
        f"""
        {select}
         WHERE {" AND ".join(conditions)}
         ORDER BY id {"ASC" if span.before is not None else "DESC"}
         LIMIT {span.limit}
        """,
        *arguments,
    )
    return rows[::-1] if span.before is not None else rows
