"""Postgres's faults become what to do next, and a broken connection is never lent again."""

import asyncio
from typing import Any

import asyncpg
import pytest

from shared import db
from shared.db import Database, DatabaseUnavailable, RowRefused, open_database
from tests.system import Urls, eventually


async def test_a_connection_that_the_server_ends_is_replaced(
    database: Database, urls: Urls
) -> None:
    victim = await open_database(urls.database, service="victim", size=1, wait=5)
    pid = await victim.fetchval("SELECT pg_backend_pid()")
    await database.fetchval("SELECT pg_terminate_backend($1)", pid)
    outcomes = []
    for _ in range(3):
        try:
            outcomes.append(await victim.fetchval("SELECT pg_backend_pid()"))
        except DatabaseUnavailable:
            continue
    assert outcomes, "at most the first call notices"
    assert pid not in outcomes
    await victim.close()


async def test_a_connection_in_no_state_to_be_used_is_not_lent_again(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await open_database(urls.database, service="confused", size=1, wait=5)
    pid = await database.fetchval("SELECT pg_backend_pid()")

    async def confused(*_: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 12")

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "_execute", confused)
        with pytest.raises(DatabaseUnavailable):
            await database.fetchval("SELECT 1")
    assert await database.fetchval("SELECT pg_backend_pid()") != pid
    await database.close()


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1/0", "SELECT 'x'::int", "INSERT INTO accounts (id, name) VALUES ('a', NULL)"],
)
async def test_a_row_that_is_wrong_is_refused_without_quoting_it(
    statement: str, database: Database
) -> None:
    with pytest.raises(RowRefused) as caught:
        await database.execute(statement)
    assert "SQLSTATE" in str(caught.value)
    assert "'x'" not in str(caught.value)


@pytest.mark.parametrize("statement", ["SELECT * FROM nowhere", "SELECT pg_sleep(1)"])
async def test_what_is_not_the_rows_fault_is_worth_another_try(
    statement: str, database: Database
) -> None:
    async def run() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("SET LOCAL statement_timeout = '50ms'")
            await transaction.execute(statement)

    with pytest.raises(DatabaseUnavailable):
        await run()


async def test_no_postgres_is_said_without_the_password() -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        await open_database("postgresql://me:secret@127.0.0.1:1/x", service="t", size=1, wait=0.2)
    assert "secret" not in str(caught.value)


async def test_no_statement_waits_for_helpers(empty: Database) -> None:
    async with empty.transaction() as transaction:
        await transaction.execute("CREATE TABLE large (n integer)")
        await transaction.execute("INSERT INTO large SELECT generate_series(1, 100000)")
        await transaction.execute("SET LOCAL enable_seqscan = on")
        for setting in (
            "parallel_setup_cost",
            "parallel_tuple_cost",
            "min_parallel_table_scan_size",
        ):
            await transaction.execute(f"SET LOCAL {setting} = 0")
        plan = await transaction.fetch("EXPLAIN SELECT count(*) FROM large WHERE n % 7 = 3")
        await transaction.execute("DROP TABLE large")
    assert "Gather" not in str(plan)


async def test_the_plan_of_an_empty_table_is_forgotten(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two indexes that begin alike, one finds a row and the other walks the account; while a
    table is empty they cost the same."""
    monkeypatch.setattr(db, "_FIRST_PLANS_LAST", 0.05)
    database = await open_database(urls.database, service="planner", size=1, wait=5)
    for statement in (
        "CREATE TABLE walked (account_id text, kind text, id text, body char(800) DEFAULT '')",
        "ALTER TABLE walked SET (autovacuum_enabled = off)",
        "ALTER TABLE walked ADD CONSTRAINT walked_pkey PRIMARY KEY (account_id, id)",
        "CREATE INDEX walked_by_kind ON walked (account_id, kind, id)",
        "PREPARE look AS SELECT * FROM walked WHERE account_id = $1 AND id = $2",
        "SET plan_cache_mode = force_generic_plan",
        "EXPLAIN EXECUTE look ('a', '1')",
    ):
        await database.execute(statement)

    async def plan() -> str:
        rows = await database.fetch("EXPLAIN EXECUTE look ('a', '1')")
        return "\n".join(row["QUERY PLAN"] for row in rows)

    assert "walked_by_kind" in await plan(), "the trap"
    await database.execute(
        "INSERT INTO walked SELECT 'a', 'k', n::text FROM generate_series(1, 5000) AS n"
    )

    async def planned_anew() -> bool:
        return "walked_pkey" in await plan()

    await eventually(planned_anew)
    await database.execute("DROP TABLE walked")
    await database.close()


async def test_one_connection_serves_one_statement_after_another_and_whoever_waits(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await open_database(urls.database, service="kept", size=1, wait=5)
    asked = 0
    acquire = asyncpg.Pool.acquire

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return acquire(*arguments, **options)

    monkeypatch.setattr(asyncpg.Pool, "acquire", counted)
    for _ in range(10):
        await database.fetchval("SELECT 1")
    assert asked == 1, "it is kept"
    async with asyncio.timeout(5):
        results = await asyncio.gather(*(database.fetchval("SELECT $1::int", n) for n in range(10)))
    assert results == list(range(10)), "and given up to those who wait for one"
    with pytest.raises(RowRefused):
        await database.fetchval("SELECT 1/0")
    before = asked
    await database.fetchval("SELECT 1")
    assert asked == before + 1, "what failed has been through the pool, which looks at it"
    await database.close()
