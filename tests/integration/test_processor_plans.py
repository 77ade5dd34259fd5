"""What the processor's background work costs is what is new, also while Postgres knows nothing of a
table yet."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.processor.store.unsettled import find_oldest_open, find_unknown, queue_lost
from shared.db import Database
from tests.integration.test_query_plans import Explaining, blocks
from tests.settling import accept

ROWS = 5000
ASKED: Any = {"shortest": 5, "longest": 9, "limit": 10}
MOST_BLOCKS = 30
"""Of 8 KiB, for a few rows; the table has hundreds."""


@pytest.fixture
async def filled(empty: Database) -> Database:
    """Thousands of payments that were completed a while ago, and that no vacuum has seen."""
    await empty.execute("ALTER TABLE payments SET (autovacuum_enabled = off)")
    await empty.execute(
        """
        INSERT INTO payments (account_id, id, amount, currency, status, created_at,
                              processed_at)
        SELECT 'acct_default', 'pay_' || lpad(n::text, 32, '0'), 1, 'USD', 'completed',
               now() - interval '1 hour', now() - interval '1 hour'
          FROM generate_series(1, $1::integer) AS n
        """,
        ROWS,
    )
    await find_oldest_open(empty, "payments", older_than=60)
    return empty


@pytest.mark.parametrize("generic", [False, True], ids=["custom plans", "kept plans"])
async def test_no_look_reads_a_table(generic: bool, filled: Database) -> None:
    database = Explaining(filled, generic=generic)
    [item] = await accept(filled, 1)
    assert await find_oldest_open(database, "payments", older_than=0) is not None
    assert await queue_lost(database, "payments", older_than=0, limit=10) == [item.id]
    assert await find_unknown(database, "payments", **ASKED, now=datetime.now(UTC)) == []
    await filled.execute(
        "UPDATE payments SET status = 'processing', unknown_since = updated_at WHERE id = $1",
        item.id,
    )
    later = datetime(2100, 1, 1, tzinfo=UTC)
    assert await find_unknown(database, "payments", **ASKED, now=later) == [item]
    costly = {sql: blocks(plan) for sql, plan in database.plans if blocks(plan) > MOST_BLOCKS}
    assert costly == {}
