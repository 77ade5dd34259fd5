"""The schema moves forward, one step at a time, and services refuse another than they know."""

import asyncio
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from deploy.migrate import migrate, migrations
from shared.db import open_database
from shared.errors import Misconfigured
from shared.schema import SCHEMA_VERSION, require_schema
from tests.backends import Servers


@pytest.fixture
async def bare_url(servers: Servers) -> AsyncIterator[str]:
    """A database with nothing in it."""
    connection = await asyncpg.connect(servers.database)
    await connection.execute("CREATE DATABASE bare")
    yield servers.database_url_of("bare")
    await connection.execute("DROP DATABASE bare WITH (FORCE)")
    await connection.close()


async def test_the_code_knows_the_newest_migration() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, SCHEMA_VERSION + 1))


async def test_two_deploys_at_once_apply_each_step_once(bare_url: str) -> None:
    results = await asyncio.gather(*(migrate(bare_url, first_key=None) for _ in range(4)))
    assert sorted(len(applied) for applied, _ in results) == [0, 0, 0, SCHEMA_VERSION]
    keys = [made for _, made in results if made]
    assert len(keys) == 1, "the first key is made and shown once"
    assert keys[0].startswith("sk_")


async def test_a_table_in_use_is_not_waited_for_long(bare_url: str) -> None:
    blocker = await asyncpg.connect(bare_url)
    await blocker.execute("SELECT pg_advisory_lock($1)", 0x666C6F72696E)
    with pytest.raises(Misconfigured, match="run it again"):
        await migrate(bare_url, first_key=None)
    await blocker.close()


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (None, "run `./florin migrate`"),
        ("DELETE FROM schema_migrations", "run `./florin migrate`"),
        ("INSERT INTO schema_migrations VALUES (999, 'later')", "deploy the release that migrated"),
    ],
)
async def test_a_service_refuses_another_schema_and_says_what_to_do(
    bare_url: str, change: str | None, remedy: str
) -> None:
    if change is not None:
        await migrate(bare_url, first_key=None)
    database = await open_database(bare_url, service="test", size=2, wait=5)
    if change is not None:
        await database.execute(change)
    with pytest.raises(Misconfigured, match=re.escape(remedy)):
        await require_schema(database)
    await database.close()


async def test_counts_of_two_releases_add_up(bare_url: str) -> None:
    counts = "INSERT INTO counts (account_id, object, currency, status, number, amount) VALUES "
    connection = await asyncpg.connect(bare_url)
    for migration in migrations():
        if migration.version == 11:
            await connection.execute(f"""{counts}
                ('a', 'payment', 'USD', 'pending', 5, 500),
                ('a', 'payment', 'USD', 'pending', -2, -300),
                ('a', 'payment', 'USD', 'processing', 2, 300),
                ('a', 'payment', 'USD', 'processing', -1, -90),
                ('a', 'payment', 'USD', 'completed', 1, 90),
                ('a', 'webhook', '', 'delivered', 3, 0)""")
        await connection.execute(migration.sql)
    await connection.execute(f"""{counts}
        ('a', 'payment', 'USD', 'pending', 1, 7),
        ('a', 'payment', 'USD', 'processing', -1, -210),
        ('a', 'payment', 'USD', 'failed', 1, 210)""")
    await connection.execute("""
        INSERT INTO arrivals (account_id, object, currency, status, number, amount)
        VALUES ('a', 'payment', 'USD', 'pending', 2, 30),
               ('a', 'payment', 'USD', 'processing', 4, 37),
               ('a', 'payment', 'USD', 'completed', 3, 27),
               ('a', 'webhook', '', 'delivered', 2, 0)""")
    rows = await connection.fetch("SELECT status, number, amount FROM standings")
    await connection.close()
    assert {row["status"]: (row["number"], row["amount"]) for row in rows} == {
        "pending": (3 + 1 + 2 - 4, 200 + 7 + 30 - 37),
        "processing": (4 - 3, 37 - 27),
        "completed": (1 + 3, 90 + 27),
        "failed": (1, 210),
        "delivered": (5, 0),
    }
