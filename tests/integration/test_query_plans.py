"""What a request costs does not grow with the tables: no path scans one, and no page is deep.

Every statement that a route sends is explained, as it is sent, on tables of 200,000 rows: what it
really touched must be a small part of any of them, also with the plan that Postgres keeps when it
no longer looks at the values.
"""

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from services.api.accept import Acceptor
from services.api.app import make_web
from services.api.config import ApiSettings
from services.api.congestion import Congestion
from services.api.context import Context
from services.api.reserve import Reserver
from services.api.routes import OPERATIONS
from shared.broker import Publisher
from shared.db import Connection, Database, Row
from shared.lifecycle import Lifecycle
from shared.outbox import OutboxRelay
from shared.sealing import Seal
from tests.system import SEALING_KEY, Urls

SEALED = (SecretStr(SEALING_KEY),)
ROWS = 200_000
MOST_BLOCKS = 400
"""Of 8 KiB; every filled table has thousands."""
NOW = int(time.time())
FILL = (
    """
    INSERT INTO payments (account_id, id, amount, currency, customer, status, failure_code,
                          amount_refunded, created_at, updated_at, processed_at, gateway_reference)
    SELECT account, 'pay_' || id, 1000, 'USD', 'customer ' || n % 1000, state,
           CASE state WHEN 'failed' THEN 'card_declined' END,
           CASE state WHEN 'completed' THEN 1 ELSE 0 END, at, at, at, 'ref'
      FROM filling
    """,
    """
    INSERT INTO refunds (account_id, id, payment_id, amount, currency, status, created_at,
                         updated_at, processed_at)
    SELECT account, 're_' || id, 'pay_' || id, 1, 'USD', 'completed', at, at, at
      FROM filling WHERE state = 'completed'
    """,
    """
    INSERT INTO transfers (account_id, id, debit, credit, currency, amount, kind, source_id,
                           created_at)
    SELECT account, 'txn_' || id, 'gateway_clearing', 'merchant_balance', 'USD', 1000, 'payment',
           'pay_' || id, at
      FROM filling WHERE state = 'completed'
    """,
    """
    INSERT INTO events (account_id, id, type, object_id, body, created_at)
    SELECT account, 'evt_' || id, 'payment.' || state, 'pay_' || id,
           '{"id": "evt_' || id || '"}', at
      FROM filling
    """,
    """
    INSERT INTO deliveries (account_id, id, event_id, endpoint_id, status, created_at)
    SELECT account, 'dlv_' || id, 'evt_' || id, 'we_1', 'delivered', at FROM filling
    """,
    """
    INSERT INTO delivery_attempts (account_id, delivery_id, number, started_at)
    SELECT account, 'dlv_' || id, 1, at FROM filling
    """,
    """
    INSERT INTO webhook_endpoints (account_id, id, url, secret)
    VALUES ('acct_default', 'we_1', 'http://127.0.0.1:1/', 's')
    """,
    """
    INSERT INTO replays (account_id, id, endpoint_id, since, until, types, only_dead, cursor,
                         stop_before, events, created_at, finished_at)
    SELECT account, 'rpl_' || id, 'we_1', at, at, '{}', false, '', '', 0, at, at FROM filling
    """,
    """
    INSERT INTO webhook_subscriptions (account_id, endpoint_id, enabled_events)
    VALUES ('acct_default', 'we_1', '{*}')
    """,
    f"""
    INSERT INTO sweep_marks (name, mark)
    SELECT name, to_timestamp({NOW} - 60) FROM (VALUES ('payments'), ('refunds')) AS of (name)
    """,
    """
    INSERT INTO request_answers (account_id, route, key, fingerprint, created_at)
    SELECT account, 'webhook_endpoints', id, '', at FROM filling
    """,
    """
    INSERT INTO api_keys (account_id, id, prefix, key_hash, role)
    SELECT 'acct_default', 'key_' || id, 'sk_' || left(md5(id), 8), '', 'secret' FROM filling
    """,
)


class Explaining(Database):
    """A database that explains every statement before it is executed."""

    def __init__(self, database: Database, *, generic: bool) -> None:
        super().__init__(database._pool, 5, database._plans)
        self._kept = database._kept
        self.generic = generic
        self.plans: list[tuple[str, dict[str, Any]]] = []

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with super().connection() as connection:
            yield _Explainer(connection, self)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with super().transaction() as connection:
            yield _Explainer(connection, self)


class _Explainer(Connection):
    def __init__(self, connection: Connection, owner: Explaining) -> None:
        super().__init__(connection.raw)
        self._owner = owner

    async def fetch(self, sql: str, *args: Any) -> Any:
        await self._explain(sql, args)
        return await super().fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        await self._explain(sql, args)
        return await super().fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        await self._explain(sql, args)
        return await super().fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        await self._explain(sql, args)
        return await super().execute(sql, *args)

    async def _explain(self, sql: str, args: tuple[Any, ...]) -> None:
        trying = self.raw.transaction()
        await trying.start()
        try:
            explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
            if self._owner.generic and args:
                await self.raw.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                types = (await self.raw.prepare(sql)).get_parameters()
                names = ", ".join(f"{t.schema}.{t.name}" for t in types)
                await self.raw.execute(f"PREPARE explained ({names}) AS {sql}")
                values = [await self._literal(a, t) for a, t in zip(args, types, strict=True)]
                literals = ", ".join(values)
                plan = await self.raw.fetchval(f"{explain} EXECUTE explained ({literals})")
                await self.raw.execute("DEALLOCATE explained")
            else:
                plan = await self.raw.fetchval(f"{explain} {sql}", *args)
        finally:
            await trying.rollback()
        self._owner.plans.append((sql, json.loads(plan)[0]["Plan"]))

    async def _literal(self, value: Any, type_: Any) -> str:
        if value is None:
            return "NULL"
        name = f"{type_.schema}.{type_.name}"
        text = await self.raw.fetchval(f"SELECT quote_literal($1::{name}::text)", value)
        return f"{text}::{name}"


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Every node of a plan."""
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


def blocks(plan: dict[str, Any]) -> int:
    """Blocks that executing a plan touched."""
    touched: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return touched


@pytest.fixture(scope="module")
async def filled(database: Database) -> Database:
    """Tables of 200,000 rows: one in a hundred payments failed, one in ten is another account's."""
    async with database.transaction() as filling:
        await filling.execute(
            f"""
            CREATE TEMPORARY TABLE filling ON COMMIT DROP AS
            SELECT n, lpad(to_hex((({NOW} - {ROWS} + n)::bigint * 1000)), 12, '0')
                        || lpad(to_hex(n), 20, '0') AS id,
                   CASE n % 10 WHEN 0 THEN 'acct_other' ELSE 'acct_default' END AS account,
                   CASE WHEN n % 100 = 1 THEN 'failed' ELSE 'completed' END AS state,
                   to_timestamp({NOW} - {ROWS} + n) AS at
              FROM generate_series(1, {ROWS}) AS n
            """
        )
        for statement in FILL:
            await filling.execute(statement)
    for table in ("payments", "refunds", "transfers", "events", "deliveries"):
        await database.execute(f"ANALYZE {table}")
    return database


@contextlib.asynccontextmanager
async def serving(database: Explaining, urls: Urls) -> AsyncIterator[aiohttp.ClientSession]:
    """The API in this process, on that database."""
    publisher = Publisher(urls.amqp, name="plans")
    relay = OutboxRelay(database, publisher)
    context = Context(
        database,
        Acceptor(database, relay, 200, 2000),
        Reserver(database, relay, 200, 2000),
        publisher,
        Seal(SEALED),
        Lifecycle(),
        0.0,
    )
    settings = ApiSettings(auth="local", sealing_keys=SEALED, rate_limit=1e6, rate_burst=10**6)
    runner = web.AppRunner(make_web(settings, context, Congestion(60)).app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            yield session
    finally:
        await runner.cleanup()
        await publisher.close()


def id_at(prefix: str, row: int) -> str:
    """The id of a row that was filled in."""
    return f"{prefix}_{(NOW - ROWS + row) * 1000:012x}{row:020x}"


MIDDLE = 100_002
ENDING = [operation for operation in OPERATIONS if not operation.stream]
"""Those whose answer has an end."""
IDS = {
    "payments": id_at("pay", MIDDLE),
    "charges": id_at("pay", MIDDLE),
    "refunds": id_at("re", MIDDLE),
    "balance_transactions": id_at("txn", MIDDLE),
    "events": id_at("evt", MIDDLE),
    "deliveries": id_at("dlv", MIDDLE),
    "webhook_endpoints": "we_1",
    "replays": id_at("rpl", MIDDLE),
}
QUERIES: dict[str, list[dict[str, str]]] = {
    "/payments": [
        {"user_id": "customer 7"},
        {"status": "failed"},
        {"status": "pending"},
        {"status": "processing", "user_id": "customer 7"},
        {"currency": "USD"},
        {"currency": "JPY"},
        {"created[gte]": str(NOW - 1000), "created[lt]": str(NOW - 900)},
        {"created[lt]": str(NOW - ROWS + 500)},
        {"starting_after": IDS["payments"]},
        {"ending_before": IDS["payments"]},
    ],
    "/charges": [
        {"customer": "customer 7", "starting_after": IDS["charges"]},
        {"status": "failed", "ending_before": IDS["charges"]},
        {"status": "pending"},
        {"expand[]": "data.balance_transaction"},
    ],
    "/refunds": [
        {"charge": IDS["charges"]},
        {"status": "failed"},
        {"status": "pending"},
        {"starting_after": IDS["refunds"], "expand[]": "data.charge"},
    ],
    "/webhook_endpoints/we_1/deliveries": [
        {"starting_after": id_at("dlv", MIDDLE)},
        {"status": "dead"},
        {"status": "retrying"},
        {"status": "held"},
    ],
    "/webhook_endpoints/we_1/replays": [{"starting_after": id_at("rpl", MIDDLE)}],
    "/deliveries": [{"status": "dead"}, {"starting_after": id_at("dlv", MIDDLE)}],
    "/events": [
        {"type": "payment.failed"},
        {"type": "refund.failed"},
        {"types[]": "refund.failed", "types[1]": "refund.completed"},
        {"created[gt]": str(NOW - 5000), "created[lte]": str(NOW - 4900)},
        {"starting_after": IDS["events"]},
    ],
    "/balance_transactions": [
        {"source": IDS["payments"]},
        {"currency": "jpy"},
        {"type": "charge", "starting_after": IDS["balance_transactions"]},
        {"created[lt]": str(NOW - ROWS + 500)},
    ],
}
BODIES: dict[str, dict[str, Any]] = {
    "/payments": {"user_id": "u", "amount": 1, "currency": "USD"},
    "/charges": {"amount": 1, "currency": "usd"},
    "/refunds": {"charge": IDS["charges"], "amount": 1},
    "/webhook_endpoints": {"url": "http://127.0.0.1:1/", "enabled_events": ["*"]},
    "/webhook_endpoints/{id}/replay": {"since": NOW - 1000, "types": ["payment.failed"]},
    "/webhook_endpoints/{id}": {"enabled_events": ["payment.failed"], "metadata": {"a": "b"}},
}


@pytest.mark.parametrize("generic", [False, True], ids=["custom plans", "kept plans"])
async def test_no_request_touches_more_than_a_small_part_of_a_table(
    generic: bool, filled: Database, urls: Urls
) -> None:
    explaining = Explaining(filled, generic=generic)
    walked = set()
    async with serving(explaining, urls) as http:
        for operation in sorted(ENDING, key=lambda o: o.method == "DELETE"):
            resource = operation.path.split("/")[1]
            path = operation.path.replace("{id}", IDS.get(resource, ""))
            listed = QUERIES.get(path, []) if operation.method == "GET" else []
            for query in [{}, *listed]:
                headers = {"Idempotency-Key": f"{generic}"} if operation.body else {}
                for _ in range(2 if operation.body else 1):  # and once more as a replay
                    async with http.request(
                        operation.method,
                        f"/v1{path}",
                        params=query,
                        json=BODIES.get(operation.path) if operation.body else None,
                        headers=headers,
                    ) as response:
                        told = await response.text()
                    gone = resource == "webhook_endpoints" and response.status == 404
                    gone |= "was deleted" in told
                    assert response.status < 300 or gone, told
            walked.add((operation.method, operation.path))
    assert len(walked) == len(ENDING)
    assert len(explaining.plans) > len(ENDING)
    costly = {
        sql: (blocks(plan), [n["Node Type"] for n in nodes(plan)])
        for sql, plan in explaining.plans
        if blocks(plan) > MOST_BLOCKS
        or any(n["Node Type"] == "Seq Scan" and n["Actual Rows"] > 100 for n in nodes(plan))
    }
    assert costly == {}


@pytest.mark.parametrize(
    ("path", "filters"),
    [
        ("payments", {}),
        ("payments", {"currency": "USD"}),
        ("charges", {}),
        ("refunds", {}),
        ("events", {}),
        ("events", {"type": "payment.completed"}),
        ("balance_transactions", {}),
        ("balance_transactions", {"currency": "usd"}),
    ],
)
@pytest.mark.parametrize("generic", [False, True], ids=["custom plans", "kept plans"])
async def test_a_page_costs_the_same_at_any_depth(
    path: str, filters: dict[str, str], generic: bool, filled: Database, urls: Urls
) -> None:
    explaining = Explaining(filled, generic=generic)
    prefix = IDS[path].partition("_")[0]
    costs = []
    async with serving(explaining, urls) as http:
        for row in (ROWS - 2, MIDDLE, 302):
            explaining.plans.clear()
            query = {**filters, "starting_after": id_at(prefix, row), "limit": "20"}
            async with http.get(f"/v1/{path}", params=query) as response:
                assert len((await response.json())["data"]) == 20
            costs.append(sum(blocks(plan) for _, plan in explaining.plans))
    assert max(costs) <= min(costs) * 1.5 + 10, costs
