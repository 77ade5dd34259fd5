"""What an attempt costs does not grow with an account's deliveries, also while Postgres knows
nothing of a table yet: no statement of the notifier walks an account."""

from datetime import UTC, datetime

import pytest

from services.notifier.policy import Delivered, Result, Retry, Verdict
from services.notifier.store.attempts import Finished, claim_attempts, record_attempts
from services.notifier.store.backlog import (
    defer,
    defer_lost,
    find_due,
    find_endpoints_overdue,
    give_up_claims,
)
from services.notifier.store.endpoints import (
    hold_deliveries,
    mark_failing,
    mark_recovered,
    release_deliveries,
)
from services.notifier.store.opening import (
    find_untold_events,
    look_up_targets,
    open_deliveries,
)
from services.notifier.store.replays import find_replays
from shared.db import Database
from shared.messages import Item
from tests.integration.test_query_plans import Explaining, blocks
from tests.telling import ACCOUNT, deliveries, happen, subscribe

ROWS = 5000
MOST_BLOCKS = 60
"""Of 8 KiB, for three rows; the table has some two hundred, and walking the account's deliveries by
an index touches thousands."""


@pytest.fixture
async def filled(empty: Database) -> str:
    """An account with thousands of deliveries that Postgres has not looked at; its endpoint."""
    endpoint = await subscribe(empty, "http://127.0.0.1:1/")
    await empty.execute("ALTER TABLE deliveries SET (autovacuum_enabled = off)")
    await empty.execute(
        """
        INSERT INTO deliveries (account_id, id, event_id, endpoint_id, status)
        SELECT $1, 'dlv_' || lpad(n::text, 32, '0'), 'evt_' || n, $2, 'delivered'
          FROM generate_series(1, $3::integer) AS n
        """,
        ACCOUNT,
        endpoint,
        ROWS,
    )
    return endpoint


@pytest.mark.parametrize("generic", [False, True], ids=["custom plans", "kept plans"])
async def test_no_statement_walks_an_account(generic: bool, empty: Database, filled: str) -> None:
    database, endpoint = Explaining(empty, generic=generic), Item(ACCOUNT, filled)
    events = [await happen(empty) for _ in range(3)]
    opened = await open_deliveries(database, events[:1], lease=10)
    opened |= await open_deliveries(database, events[1:])
    items = [Item(ACCOUNT, d["id"]) for d in await deliveries(empty) if d["status"] == "pending"]
    assert len(items) == 3
    await look_up_targets(database, items)
    [first] = opened[events[0].id] or []
    assert first.attempt is not None
    held = dict.fromkeys(items) | {first.item: first.attempt.lease_until}
    attempts = await claim_attempts(database, held, lease=10)
    result, later = Result(datetime.now(UTC), 1, 200), datetime(2020, 1, 1, tzinfo=UTC)
    verdicts: list[Verdict] = [Delivered(), Retry(later, 0.25), Retry(later, 0.25)]
    await record_attempts(
        database,
        [Finished(a, result, v) for a, v in zip(attempts.values(), verdicts, strict=True)],
    )
    await defer(database, dict.fromkeys(items))
    await give_up_claims(database, dict.fromkeys(items, later))
    assert len((await find_due(database, [(endpoint, 10)]))[endpoint]) == 2
    assert await find_endpoints_overdue(database, grace=0) == [endpoint]
    await mark_failing(database, [endpoint], later)
    await mark_recovered(database, [endpoint])
    await empty.execute(
        "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'test'"
    )
    assert await hold_deliveries(database, limit=10) == 2
    await empty.execute("UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL")
    assert len(await release_deliveries(database, limit=10)) == 2
    await find_replays(database, most_due=10)
    # What a sweep looks at is as much as is new, and here all is new.
    await empty.execute(
        """
        INSERT INTO sweep_marks (name, mark)
        SELECT name, now() FROM (VALUES ('events'), ('deliveries')) AS of (name)
        """
    )
    await defer_lost(database, older_than=0, limit=10)
    await find_untold_events(database, older_than=0, limit=10)
    costly = {sql: blocks(plan) for sql, plan in database.plans if blocks(plan) > MOST_BLOCKS}
    assert costly == {}
