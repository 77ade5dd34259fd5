"""Parts of lists. Every list is a walk along `(account_id, id)`, and ids sort by time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import itemgetter
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
    along: Mapping[str, str | None] | None = None,
) -> Sequence[Row]:
    """The rows of `span`, newest first, whose ids begin with `prefix`.

    `filters` are conditions with a place for one value, and those values; None asks for nothing.
    Only what is asked for becomes part of the statement: a condition that says "or no filter" could
    not be looked up in an index by a plan that is kept. `along` are columns that have an index of
    their own with the id, and the values that are asked for: the first of them is walked along.
    Bounds in time are bounds of the id too, so that what is outside of them is not walked through.
    """
    lowest, highest = span.before or "", span.after or "~"  # before and after every id
    if span.since is not None:
        lowest = max(lowest, id_at(prefix, span.since - CLOCK_SLACK))
    if span.until is not None:
        highest = min(highest, id_at(prefix, span.until + CLOCK_SLACK))
    asked = {column: value for column, value in (along or {}).items() if value is not None}
    way, order = "ASC" if span.before is not None else "DESC", "id"
    conditions, arguments = ["account_id = $1", "id > $2", "id < $3"], [account_id, lowest, highest]
    for column, value in list(asked.items())[:1]:
        # As bounds of (column, id), and not as an equality, so that also a plan which does not know
        # how rare the value is can only have this order from the column's own index.
        order = f"{column} {way}, id"
        conditions[1:] = [
            f"({column}, id) > ($4, $2)",
            f"({column}, id) < ($4, $3)",
            f"{column} IS NOT NULL",  # for an index of those rows alone
        ]
        arguments.append(value)
        del asked[column]
    wanted = {"created_at >= {}": span.since, "created_at < {}": span.until, **filters}
    wanted |= {f"{column} = {{}}": value for column, value in asked.items()}
    for condition, value in wanted.items():
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(f"${len(arguments)}"))
    rows = await database.fetch(
        f"""
        {select}
         WHERE {" AND ".join(conditions)}
         ORDER BY {order} {way}
         LIMIT {span.limit}
        """,
        *arguments,
    )
    return rows[::-1] if span.before is not None else rows


async def fetch_merged_page(
    database: Database,
    select: str,
    prefix: str,
    account_id: str,
    walks: Sequence[tuple[Span, Mapping[str, Any], Mapping[str, str | None]]],
) -> Sequence[Row]:
    """The rows of several walks as of one: each by an index that suits it.

    A row that moves from one walk to the next between the two is shown once, as it was last.
    """
    found = [
        await fetch_page(database, select, prefix, account_id, span, filters=filters, along=along)
        for span, filters, along in walks
    ]
    by_id = {row["id"]: row for walk in found for row in walk}
    rows = sorted(by_id.values(), key=itemgetter("id"), reverse=True)
    span = walks[0][0]
    return rows[-span.limit :] if span.before is not None else rows[: span.limit]


async def fetch_settling_page(
    database: Database,
    select: str,
    prefix: str,
    account_id: str,
    span: Span,
    *,
    sweep: str,
    statuses: Sequence[str] | None,
    along: Mapping[str, str | None],
) -> Sequence[Row]:
    """A page of payments or refunds, in one of `statuses` where that is asked.

    No index names the state: it changes, and every change would pay. What failed has an index of
    its own, and what is open is either of unknown outcome, which has one too, or not older than
    the mark that `sweep` has left: everything before that is known to be done.
    """
    if statuses is None or "completed" in statuses:
        filters: dict[str, Any] = {"status = ANY({})": statuses}
        return await fetch_page(
            database, select, prefix, account_id, span, filters=filters, along=along
        )
    if "failed" in statuses:
        filters = {f"{column} = {{}}": value for column, value in along.items()}
        filters["failure_code IS NOT NULL AND {}"] = True
        return await fetch_page(database, select, prefix, account_id, span, filters=filters)
    mark: datetime | None = await database.fetchval(
        "SELECT mark FROM sweep_marks WHERE name = $1", sweep
    )
    recent = max(filter(None, (span.since, mark)), default=None)
    filters = {f"{column} = {{}}": value for column, value in along.items()}
    filters["status = ANY({})"] = statuses
    # In this order: work goes from known to unknown, and comes back only when it is done.
    walks: list[tuple[Span, dict[str, Any], dict[str, str | None]]] = [
        (replace(span, since=recent), {**filters, "unknown_since IS NULL AND {}": True}, {}),
        (span, {**filters, "unknown_since IS NOT NULL AND {}": True}, {}),
    ]
    return await fetch_merged_page(database, select, prefix, account_id, walks)
