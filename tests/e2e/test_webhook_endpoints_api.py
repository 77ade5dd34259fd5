"""Endpoints by HTTP: tested, disabled and enabled, with headers of their own, replayed to."""

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from services.notifier.store.opening import find_untold_events
from shared.db import Database
from tests.invariants import assert_deliveries
from tests.receiver import Heard, Receiver
from tests.system import System, eventually


@pytest.fixture(scope="module")
async def http(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(system.url) as session:
        yield session


async def post(http: aiohttp.ClientSession, path: str, body: Any = None, status: int = 200) -> Any:
    async with http.post(f"/v1/{path}", json=body or {}) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def get(http: aiohttp.ClientSession, path: str, **query: Any) -> Any:
    async with http.get(f"/v1/{path}", params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


@pytest.fixture
async def endpoint(http: aiohttp.ClientSession, receiver: Receiver) -> AsyncIterator[Any]:
    """An endpoint of the receiver's that hears of completed payments, with a header of its own."""
    made = await post(
        http,
        "webhook_endpoints",
        {
            "url": receiver.url,
            "enabled_events": ["payment.completed"],
            "custom_headers": {"Authorization": "Bearer t0psecret", "X-Tenant": "7"},
        },
    )
    receiver.secret = made["secret"]
    yield made
    await http.delete(f"/v1/webhook_endpoints/{made['id']}")


async def paid(http: aiohttp.ClientSession) -> str:
    """A payment that was completed, and its event."""
    id_: str = (await post(http, "charges", {"amount": 100, "currency": "usd"}))["id"]

    async def completed() -> bool:
        found = await get(http, f"charges/{id_}")
        return bool(found["status"] == "succeeded")

    await eventually(completed)
    return id_


async def heard(receiver: Receiver, number: int) -> None:
    await receiver.wait_until(lambda: len(receiver.heard) >= number)


async def test_custom_headers_are_sent_kept_sealed_and_shown_by_name(
    http: aiohttp.ClientSession, endpoint: Any, receiver: Receiver, database: Database
) -> None:
    assert endpoint["custom_header_names"] == ["Authorization", "X-Tenant"]
    assert "t0psecret" not in str(endpoint)
    stored = await database.fetchval(
        "SELECT custom_headers FROM webhook_endpoints WHERE id = $1", endpoint["id"]
    )
    assert "t0psecret" not in stored
    await paid(http)
    await heard(receiver, 1)
    assert receiver.heard[0].headers["Authorization"] == "Bearer t0psecret"
    changed = await post(
        http, f"webhook_endpoints/{endpoint['id']}", {"custom_headers": {"X-New": "1"}}
    )
    assert changed["custom_header_names"] == ["X-New"]
    await paid(http)
    await heard(receiver, 2)
    assert "Authorization" not in receiver.heard[1].headers
    assert receiver.heard[1].headers["X-New"] == "1"


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"Host": "x"}, "custom_headers[Host]"),
        ({"webhook-signature": "x"}, "custom_headers[webhook-signature]"),
        ({"Content-Length": "0"}, "custom_headers[Content-Length]"),
        ({"X Y": "x"}, "custom_headers[X Y]"),
        ({"X-A": "a\r\nX-B: b"}, "custom_headers[X-A]"),
        ({"X-A": "é"}, "custom_headers[X-A]"),
        ({"X-A": ""}, "custom_headers[X-A]"),
        ({"X-A": "1", "x-a": "2"}, "custom_headers"),
        ({f"X-{n}": "1" for n in range(21)}, "custom_headers"),
    ],
)
async def test_headers_that_are_ours_or_no_headers_are_refused_by_name(
    headers: dict[str, str], param: str, http: aiohttp.ClientSession
) -> None:
    body = {"url": "http://127.0.0.1:1/", "enabled_events": ["*"], "custom_headers": headers}
    refused = (await post(http, "webhook_endpoints", body, 400))["error"]
    assert refused["param"] == param
    assert "X-B" not in refused["message"], "values may be secrets"


async def test_a_test_is_sent_to_that_endpoint_alone_and_changes_no_number(
    http: aiohttp.ClientSession, endpoint: Any, receiver: Receiver, database: Database
) -> None:
    await post(http, "webhook_endpoints", {"url": f"{receiver.url}?all", "enabled_events": ["*"]})
    before = await database.fetchval("SELECT last FROM event_sequences")
    delivery = await post(http, f"webhook_endpoints/{endpoint['id']}/test")
    assert (delivery["event_type"], delivery["status"]) == ("webhook_endpoint.test", "pending")

    async def delivered() -> Any:
        found = await get(http, f"deliveries/{delivery['id']}")
        return found if found["status"] == "delivered" else None

    shown = await eventually(delivered)
    assert [a["status_code"] for a in shown["attempts"]] == [200]
    [told] = receiver.heard
    Webhook(receiver.secret).verify(told.body, told.headers)
    assert told.event["data"]["object"]["id"] == endpoint["id"]
    assert "sequence" not in told.event
    assert await database.fetchval("SELECT last FROM event_sequences") == before
    assert await find_untold_events(database, older_than=0, limit=10) == [], "nobody else is told"
    assert (await get(http, f"events/{delivery['event']}"))["type"] == "webhook_endpoint.test"
    for made in (await get(http, "webhook_endpoints"))["data"]:
        if made["url"].endswith("?all"):
            await http.delete(f"/v1/webhook_endpoints/{made['id']}")


async def test_a_disabled_endpoint_hears_later_what_it_did_not_hear(
    http: aiohttp.ClientSession, endpoint: Any, receiver: Receiver
) -> None:
    path = f"webhook_endpoints/{endpoint['id']}"
    shown = await post(http, path, {"disabled": True})
    assert (shown["status"], shown["disabled_reason"]) == ("disabled", "by request")
    assert shown["disabled_at"] is not None
    refused = await post(http, f"{path}/test", status=400)
    assert "disabled=false" in refused["error"]["message"]
    await paid(http)

    async def held() -> Any:
        return (await get(http, f"{path}/deliveries", status="held"))["data"]

    [waiting] = await eventually(held)
    assert (waiting["status"], waiting["attempts_made"]) == ("held", 0)
    refused = await post(http, f"deliveries/{waiting['id']}/redeliver", status=400)
    assert "disabled" in refused["error"]["message"]
    assert receiver.heard == []
    shown = await post(http, path, {"disabled": False})
    assert (shown["status"], shown["disabled_reason"]) == ("enabled", None)
    await heard(receiver, 1)


async def test_410_is_seen_in_the_endpoint(
    http: aiohttp.ClientSession, endpoint: Any, receiver: Receiver
) -> None:
    async def gone(_: Heard) -> web.Response:
        return web.Response(status=410)

    receiver.answer = gone
    await paid(http)

    async def disabled() -> Any:
        found = await get(http, f"webhook_endpoints/{endpoint['id']}")
        return found if found["status"] == "disabled" else None

    shown = await eventually(disabled)
    assert shown["disabled_reason"] == "it answered 410 Gone"
    told = (await get(http, "events", type="webhook_endpoint.disabled"))["data"]
    assert told[0]["data"]["object"]["id"] == endpoint["id"]


async def test_what_happened_is_counted_and_replayed_to_an_endpoint_that_is_new(
    http: aiohttp.ClientSession, receiver: Receiver, endpoint: Any, database: Database
) -> None:
    since = int(time.time()) - 600
    await paid(http)
    await heard(receiver, 1)
    replay = f"webhook_endpoints/{endpoint['id']}/replay"
    counted = await post(http, replay, {"since": since, "dry_run": True})
    assert (counted["id"], counted["dry_run"], counted["status"]) == (None, True, "counted")
    assert counted["events"] >= 1
    already = len(receiver.heard)
    asked = await post(http, replay, {"since": since, "types": ["payment.completed"]})
    assert (asked["status"], asked["events"]) == ("running", counted["events"])
    await heard(receiver, already + asked["events"])

    async def finished() -> Any:
        found = await get(http, f"replays/{asked['id']}")
        return found if found["status"] == "finished" else None

    shown = await eventually(finished)
    assert shown["sent_again"] + shown["sent_first"] == asked["events"]
    assert shown["finished_at"] is not None
    listed = await get(http, f"webhook_endpoints/{endpoint['id']}/replays")
    assert [found["id"] for found in listed["data"]] == [asked["id"]]
    canceled = await post(http, f"replays/{asked['id']}/cancel")
    assert canceled["status"] == "finished", "it had ended"
    refused = await post(http, replay, {"since": since, "until": since}, 400)
    assert refused["error"]["param"] == "until"

    async def settled() -> bool:
        return not await database.fetchval(
            "SELECT 1 FROM deliveries WHERE status IN ('pending', 'retrying') LIMIT 1"
        )

    await eventually(settled)
    await assert_deliveries(database)


async def test_dead_letters_of_the_account_are_listed_and_sent_once_more(
    http: aiohttp.ClientSession, endpoint: Any, receiver: Receiver
) -> None:
    async def refuse(_: Heard) -> web.Response:
        return web.Response(status=500)

    receiver.answer = refuse
    await paid(http)

    async def dead() -> Any:
        found = (await get(http, "deliveries", status="dead"))["data"]
        return [d for d in found if d["webhook_endpoint"] == endpoint["id"]]

    [letter] = await eventually(dead)
    receiver.answer = Receiver().answer
    body = {"since": letter["created"] - 60, "only_dead": True}
    replay = await post(http, f"webhook_endpoints/{endpoint['id']}/replay", body)
    assert (replay["events"], replay["only_dead"]) == (1, True)

    async def delivered() -> bool:
        found = await get(http, f"deliveries/{letter['id']}")
        return bool(found["status"] == "delivered")

    await eventually(delivered)
    assert await dead() == []
