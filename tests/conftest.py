"""Postgres and RabbitMQ for the session; a database and a virtual host for each module."""

import re
from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import pytest

from deploy.migrate import migrate
from shared import topology
from shared.db import Database, open_database
from tests.backends import CHOICES, Servers, choose, running
from tests.receiver import Receiver, open_receiver
from tests.system import RETRY_DELAYS, System, Urls

TEMPLATE = "florin_template"
EMPTY = (
    "ALTER TABLE transfers DISABLE TRIGGER USER",
    """
    TRUNCATE event_sequences, payments, refunds, counts, arrivals, ledger_accounts, transfers,
             events, outbox, webhook_endpoints, webhook_subscriptions, deliveries,
             delivery_attempts, request_answers, sweep_marks, replays
    """,
    "ALTER TABLE transfers ENABLE TRIGGER USER",
)
"""What leaves a database with its schema, its accounts and its keys alone."""
KEY = "sk_test_0123456789abcdefghij"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where Postgres and RabbitMQ come from: tests/backends.py."""
    parser.addoption("--backend", choices=CHOICES, default="auto", help="where servers come from")


def pytest_report_header(config: pytest.Config) -> str:
    """Say it."""
    return f"backend: {choose(config.getoption('--backend'))}"


@pytest.fixture(scope="session")
async def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Servers]:
    """Running servers, with a migrated template database."""
    backend = choose(request.config.getoption("--backend"))
    async with running(backend, tmp_path_factory.mktemp("florin")) as servers:
        await _administer(servers, f"DROP DATABASE IF EXISTS {TEMPLATE}")
        await _administer(servers, f"CREATE DATABASE {TEMPLATE}")
        await migrate(servers.database_url_of(TEMPLATE), first_key=KEY)
        yield servers


@pytest.fixture(scope="module")
async def urls(servers: Servers, request: pytest.FixtureRequest) -> AsyncIterator[Urls]:
    """An empty, migrated database and a virtual host with the topology, for this module alone."""
    name = re.sub(r"\W+", "_", request.node.nodeid.lower().removesuffix(".py"))[-50:]
    await _administer(servers, f"DROP DATABASE IF EXISTS {name}")
    await _administer(servers, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    async with aiohttp.ClientSession(
        servers.management, headers={"Authorization": servers.authorization}, raise_for_status=True
    ) as management:
        await management.put(f"/api/vhosts/{name}")
        urls = Urls(servers.database_url_of(name), servers.amqp_url_of(name))
        await topology.apply(urls.amqp, topology.describe(RETRY_DELAYS))
        yield urls
        await management.delete(f"/api/vhosts/{name}")


@pytest.fixture(scope="module")
async def database(urls: Urls) -> AsyncIterator[Database]:
    """The module's database."""
    database = await open_database(urls.database, service="tests", size=10, wait=5)
    yield database
    await database.close()


@pytest.fixture
async def empty(database: Database) -> Database:
    """The module's database with nothing in it."""
    for statement in EMPTY:
        await database.execute(statement)
    return database


@pytest.fixture(scope="module")
async def system(urls: Urls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The three services as processes, kept running by the supervisor of `./florin up`."""
    system = System(urls, tmp_path_factory.mktemp("system"))
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture
async def merchant(system: System, receiver: Receiver) -> AsyncIterator[Receiver]:
    """A receiver that is subscribed to every event for the length of the test."""
    async with aiohttp.ClientSession(system.url, raise_for_status=True) as session:
        body = {"url": receiver.url, "enabled_events": ["*"]}
        async with session.post("/api/v1/webhook_endpoints", json=body) as response:
            endpoint = await response.json()
        receiver.secret, receiver.verifies = endpoint["secret"], True
        yield receiver
        assert receiver.disbelieved == [], "every request is signed"
        await session.delete(f"/api/v1/webhook_endpoints/{endpoint['id']}")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A merchant's HTTP server."""
    async with open_receiver() as receiver:
        yield receiver


async def _administer(servers: Servers, statement: str) -> None:
    connection = await asyncpg.connect(servers.database)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
