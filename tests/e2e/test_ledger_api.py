"""The ledger and the events by HTTP; and no account sees anything of another."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cli.keys import Role, create_key
from services.api.routes import OPERATIONS
from shared.db import Database
from tests.conftest import KEY
from tests.system import System, Urls, eventually, payment_body


@pytest.fixture(scope="module")
async def http(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(system.url) as session:
        yield session


@pytest.fixture(scope="module")
async def paid(http: aiohttp.ClientSession, database: Database) -> list[str]:
    """Settled payments: three in THB, one in JPY, and one in USD that was declined."""
    made = []
    for amount, currency in (("1", "THB"), ("2", "THB"), ("3", "THB"), (500, "JPY"),
                             ("990.01", "USD")):  # fmt: skip
        body = payment_body("u", amount, currency)
        async with http.post("/v1/payments", json=body) as response:
            made.append((await response.json())["payment_id"])

    async def all_settled() -> bool:
        return not await database.fetchval(
            "SELECT 1 FROM payments WHERE status IN ('pending', 'processing') LIMIT 1"
        )

    await eventually(all_settled)
    return made


async def get(http: aiohttp.ClientSession, path: str, **query: Any) -> tuple[int, Any]:
    async with http.get(path, params=query) as response:
        return response.status, await response.json()


async def test_the_balance_is_what_the_ledger_holds(
    http: aiohttp.ClientSession, paid: list[str]
) -> None:
    assert await get(http, "/v1/balance") == (
        200,
        {
            "object": "balance",
            "livemode": False,
            "available": [{"amount": 500, "currency": "jpy"}, {"amount": 600, "currency": "thb"}],
            "pending": [{"amount": 0, "currency": "jpy"}, {"amount": 0, "currency": "thb"}],
        },
    )


async def test_what_is_accepted_is_pending_in_the_balance_at_once(
    http: aiohttp.ClientSession,
) -> None:
    async with http.post("/v1/payments", json=payment_body("u", "990.11", "EUR")) as response:
        assert response.status == 202
    _, shown = await get(http, "/v1/balance")
    assert {"amount": 99011, "currency": "eur"} in shown["pending"]
    assert {"amount": 0, "currency": "eur"} in shown["available"]


async def test_balance_transactions_are_the_transfers(
    http: aiohttp.ClientSession, paid: list[str]
) -> None:
    _, listed = await get(http, "/v1/balance_transactions", limit=100)
    assert listed["url"] == "/v1/balance_transactions"
    assert {row["source"] for row in listed["data"]} == set(paid[:4])
    assert sum(row["net"] for row in listed["data"] if row["currency"] == "thb") == 600
    for row in listed["data"]:
        assert (row["object"], row["type"], row["status"], row["fee"], row["fee_details"]) == (
            "balance_transaction", "charge", "available", 0, [],
        )  # fmt: skip
        assert row["amount"] == row["net"] > 0
        assert await get(http, f"/v1/balance_transactions/{row['id']}") == (200, row)
    _, of_one = await get(http, "/v1/balance_transactions", source=paid[0])
    assert [row["amount"] for row in of_one["data"]] == [100]
    _, in_yen = await get(http, "/v1/balance_transactions", currency="jpy")
    assert [row["amount"] for row in in_yen["data"]] == [500]


async def test_events_tell_what_happened(http: aiohttp.ClientSession, paid: list[str]) -> None:
    _, listed = await get(http, "/v1/events", type="payment.failed")
    [failed] = listed["data"]
    assert failed["data"]["object"]["id"] == paid[4]
    assert failed["data"]["object"]["failure_code"] == "card_declined"
    assert (failed["object"], failed["livemode"], failed["pending_webhooks"]) == (
        "event", False, 0,
    )  # fmt: skip
    assert await get(http, f"/v1/events/{failed['id']}") == (200, failed)
    _, several = await get(
        http, "/v1/events", **{"types[]": "payment.failed", "types[1]": "payment.completed"}
    )
    assert len(several["data"]) == 5


async def test_lists_can_be_narrowed_to_a_span_of_time(
    http: aiohttp.ClientSession, paid: list[str]
) -> None:
    now = int(time.time())
    for path, at_least in (("payments", 5), ("events", 10), ("balance_transactions", 4)):
        for query, found in (
            ({"created[gte]": now - 600}, True),
            ({"created[gt]": now + 600}, False),
            ({"created[lt]": now - 600}, False),
            ({"created[lte]": now + 600, "created[gt]": now - 600}, True),
            ({"created[lt]": 0}, False),
        ):
            status, listed = await get(http, f"/v1/{path}", limit=100, **query)
            assert status == 200, listed
            assert len(listed["data"]) >= at_least if found else listed["data"] == []
    status, refused = await get(http, "/v1/events", **{"created[gte]": "yesterday"})
    assert (status, refused["error"]["param"]) == (400, "created[gte]")


async def test_a_parameter_that_is_a_value_and_a_list_is_refused(
    http: aiohttp.ClientSession,
) -> None:
    status, refused = await get(http, "/v1/charges", **{"limit": 5, "limit[]": 6})
    assert (status, refused["error"]["param"]) == (400, "limit[]")


@pytest.mark.parametrize("query", [{"type": "payment.lost"}, {"types[]": "x"}, {"colour": "red"}])
async def test_a_wrong_filter_is_named(query: dict[str, str], http: aiohttp.ClientSession) -> None:
    status, refused = await get(http, "/v1/events", **query)
    assert status == 400
    assert refused["error"]["param"].startswith(next(iter(query)).removesuffix("[]"))


async def test_no_route_shows_anything_of_another_account(
    http: aiohttp.ClientSession, paid: list[str], database: Database
) -> None:
    body = {"url": "http://127.0.0.1:1/", "enabled_events": ["payment.failed"]}
    async with http.post("/v1/webhook_endpoints", json=body) as response:
        endpoint = (await response.json())["id"]
    async with http.post("/v1/refunds", json={"charge": paid[0], "amount": 1}) as response:
        refund = (await response.json())["id"]
    _, listed = await get(http, "/v1/events")
    _, transactions = await get(http, "/v1/balance_transactions")
    await database.execute(
        """
        INSERT INTO deliveries (account_id, id, event_id, endpoint_id, status)
        VALUES ('acct_default', 'dlv_1', $1, $2, 'delivered')
        """,
        listed["data"][0]["id"],
        endpoint,
    )
    async with http.post(
        f"/v1/webhook_endpoints/{endpoint}/replay", json={"since": int(time.time()) - 1}
    ) as response:
        replay = (await response.json())["id"]
    own = {
        "deliveries": "dlv_1",
        "payments": paid[0],
        "charges": paid[0],
        "refunds": refund,
        "events": listed["data"][0]["id"],
        "balance_transactions": transactions["data"][0]["id"],
        "webhook_endpoints": endpoint,
        "replays": replay,
    }
    _, key = await create_key(database, account_id="", new_account="Other", role=Role.SECRET)
    foreign = {"Authorization": f"Bearer {key}"}
    walked = set()
    for operation in (op for op in OPERATIONS if not op.stream):
        name = operation.path.split("/")[1]
        path = "/v1" + operation.path.replace("{id}", own.get(name, ""))
        if operation.method == "POST" and "{id}" not in operation.path:
            continue
        walked.add(f"{operation.method} {operation.path}")
        sent: dict[str, Any] | None = {} if operation.body else None
        if operation.path.endswith("/replay"):
            sent = {"since": 0}
        async with http.request(operation.method, path, headers=foreign, json=sent) as response:
            answer = await response.json()
        if "{id}" in operation.path:
            assert (response.status, answer["error"]["code"]) == (404, "resource_missing")
        else:
            assert response.status == 200
            text = str(answer)
            assert not any(id_ in text for id_ in own.values())
            assert answer.get("data", []) == []
    for named in ("charge", "payment_id", "transaction_id"):
        async with http.post("/v1/refunds", headers=foreign, json={named: paid[0]}) as response:
            answer = await response.json()
        assert (response.status, answer["error"]["param"]) == (404, named)
    assert len(walked) == len(OPERATIONS) - 5, "all but those that make something, and the stream"
    for name, id_ in own.items():  # and all of it is still there for its owner
        assert (await get(http, f"/v1/{name}/{id_}"))[0] == 200


async def test_off_loopback_without_any_key_the_api_refuses_to_start(
    urls: Urls, database: Database, tmp_path: Path
) -> None:
    system = System(urls, tmp_path, FLORIN_AUTH="required", FLORIN_API_HOST="0.0.0.0")
    api = system.services["api"]
    await database.execute("UPDATE api_keys SET revoked_at = now() WHERE revoked_at IS NULL")
    try:
        with pytest.raises(Exception, match="there is no API key: make one with"):
            await api.start(20)
    finally:
        await api.stop()
        await database.execute("UPDATE api_keys SET revoked_at = NULL")
    assert KEY not in api.log_file.read_text()
