"""What became of telling: deliveries and attempts by HTTP, made again by hand; secrets rotated."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import stripe
from aiohttp import web
from standardwebhooks import WebhookVerificationError

from shared.db import Database
from tests.invariants import assert_deliveries
from tests.receiver import Heard, Receiver, verify
from tests.system import System, eventually


@pytest.fixture(scope="module")
async def http(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(system.url) as session:
        yield session


@pytest.fixture
async def endpoint(http: aiohttp.ClientSession, receiver: Receiver) -> str:
    """An endpoint of the receiver's that hears of completed payments."""
    body = {"url": receiver.url, "enabled_events": ["payment.completed"]}
    async with http.post("/v1/webhook_endpoints", json=body) as response:
        made = await response.json()
    receiver.secret = made["secret"]
    id_: str = made["id"]
    return id_


async def get(http: aiohttp.ClientSession, path: str, **query: Any) -> Any:
    async with http.get(path, params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def charge(http: aiohttp.ClientSession) -> str:
    async with http.post("/v1/charges", json={"amount": 100, "currency": "usd"}) as response:
        id_: str = (await response.json())["id"]
        return id_


async def deliveries(http: aiohttp.ClientSession, endpoint: str, **query: Any) -> list[Any]:
    found = await get(http, f"/v1/webhook_endpoints/{endpoint}/deliveries", **query)
    data: list[Any] = found["data"]
    return data


async def finished(http: aiohttp.ClientSession, endpoint: str, status: str) -> Any:
    async def one() -> Any:
        found = await deliveries(http, endpoint)
        return found[0] if found and found[0]["status"] == status else None

    return await eventually(one)


async def hears(receiver: Receiver, number: int) -> None:
    """Wait until so many requests have come."""
    await receiver.wait_until(lambda: len(receiver.heard) >= number)


async def refuse(_: Heard) -> web.Response:
    return web.Response(status=500, text="not today")


async def test_a_delivery_shows_each_attempt_and_what_was_answered(
    http: aiohttp.ClientSession, endpoint: str, receiver: Receiver
) -> None:
    receiver.answer = refuse
    paid = await charge(http)
    dead = await finished(http, endpoint, "dead")
    assert (dead["event_type"], dead["attempts_made"], dead["next_attempt_at"]) == (
        "payment.completed", 4, None,
    )  # fmt: skip
    event = await get(http, f"/v1/events/{dead['event']}")
    assert event["data"]["object"]["id"] == paid
    shown = await get(http, f"/v1/deliveries/{dead['id']}")
    assert [a["number"] for a in shown["attempts"]] == [1, 2, 3, 4]
    assert {(a["status_code"], a["response_start"]) for a in shown["attempts"]} == {
        (500, "not today")
    }
    assert await deliveries(http, endpoint, status="dead") == [dead]
    assert await deliveries(http, endpoint, status="retrying") == []
    async with http.get("/v1/webhook_endpoints/we_none/deliveries") as response:
        assert response.status == 404


@pytest.mark.parametrize("status", ["dead", "delivered"])
async def test_a_delivery_is_made_once_more_by_hand(
    status: str, http: aiohttp.ClientSession, endpoint: str, receiver: Receiver
) -> None:
    if status == "dead":
        receiver.answer = refuse
    await charge(http)
    before = await finished(http, endpoint, status)
    receiver.answer = Receiver().answer
    heard = len(receiver.heard)
    path = f"/v1/deliveries/{before['id']}/redeliver"
    headers = {"Idempotency-Key": f"again {status}"}
    for replayed in (None, "true"):
        async with http.post(path, headers=headers) as response:
            assert response.status == 200, await response.text()
            assert response.headers.get("Idempotent-Replayed") == replayed
    await receiver.wait_until(lambda: len(receiver.heard) == heard + 1)

    async def delivered() -> Any:
        found = await get(http, f"/v1/deliveries/{before['id']}")
        return found if found["status"] == "delivered" else None

    after = await eventually(delivered)
    assert after["attempts_made"] == before["attempts_made"] + 1
    assert [a["number"] for a in after["attempts"]] == list(range(1, after["attempts_made"] + 1))
    ids = {h.headers["webhook-id"] for h in receiver.heard}
    assert ids == {before["event"]}, "the same event, however often"


async def test_what_is_under_way_or_has_no_endpoint_is_not_made_again(
    http: aiohttp.ClientSession, endpoint: str, receiver: Receiver
) -> None:
    may_answer = asyncio.Event()

    async def later(_: Heard) -> web.Response:
        await may_answer.wait()
        return web.Response()

    receiver.answer = later
    await charge(http)
    await receiver.wait_until(lambda: len(receiver.heard) == 1)
    [open_] = await deliveries(http, endpoint)
    path = f"/v1/deliveries/{open_['id']}/redeliver"
    async with http.post(path) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (400, "delivery_not_repeatable")
    may_answer.set()
    await finished(http, endpoint, "delivered")
    await http.delete(f"/v1/webhook_endpoints/{endpoint}")
    async with http.post(path) as response:
        error = (await response.json())["error"]
    assert (response.status, "was deleted" in error["message"]) == (400, True)
    assert len(receiver.heard) == 1


async def test_a_rotation_signs_with_both_secrets_until_it_ends(
    http: aiohttp.ClientSession, endpoint: str, receiver: Receiver, database: Database
) -> None:
    old = receiver.secret
    path = f"/v1/webhook_endpoints/{endpoint}/rotate_secret"
    async with http.post(path, json={"overlap": 3600}) as response:
        new = (await response.json())["secret"]
    assert new != old
    assert len(base64.b64decode(new.removeprefix("whsec_"))) == 32
    await charge(http)
    await receiver.wait_until(lambda: len(receiver.heard) == 1)
    for secret in (old, new):
        verify(receiver.heard[0], secret)
    async with http.post(path) as response:  # as who has not heard the answer asks again
        unheard, new = new, (await response.json())["secret"]
    await charge(http)
    await receiver.wait_until(lambda: len(receiver.heard) == 2)
    for secret in (old, unheard, new):
        verify(receiver.heard[1], secret)
    await database.execute(
        "UPDATE webhook_endpoints SET previous_secrets_until = now() WHERE id = $1", endpoint
    )
    await charge(http)
    await receiver.wait_until(lambda: len(receiver.heard) == 3)
    verify(receiver.heard[2], new)
    with pytest.raises(WebhookVerificationError):
        verify(receiver.heard[2], old)
    async with http.post(path, json={"overlap": 0}) as response:
        newest = (await response.json())["secret"]
    await charge(http)
    await receiver.wait_until(lambda: len(receiver.heard) == 4)
    verify(receiver.heard[3], newest)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(
            receiver.heard[3].body, receiver.heard[3].headers["Stripe-Signature"], new
        )


async def test_every_request_is_believed_while_secrets_are_rotated_under_load(
    http: aiohttp.ClientSession, endpoint: str, receiver: Receiver
) -> None:
    """The receiver learns a new secret some time after it was made, as people do."""
    receiver.verifies = True
    path = f"/v1/webhook_endpoints/{endpoint}/rotate_secret"
    for rotation in range(1, 4):
        paying = [asyncio.create_task(charge(http)) for _ in range(30)]
        async with http.post(path, json={"overlap": 3600}) as response:
            new = (await response.json())["secret"]
        await asyncio.gather(*paying)
        await hears(receiver, 30 * rotation - 10)
        receiver.secret = new
        await hears(receiver, 30 * rotation)
    assert receiver.disbelieved == []


async def test_no_secret_stands_in_the_database(
    http: aiohttp.ClientSession, database: Database
) -> None:
    body = {"url": "http://127.0.0.1:1/", "enabled_events": ["payment.failed"]}
    headers = {"Idempotency-Key": "sealed"}
    async with http.post("/v1/webhook_endpoints", json=body, headers=headers) as response:
        made = await response.json()
    async with http.post(f"/v1/webhook_endpoints/{made['id']}/rotate_secret") as response:
        rotated = await response.json()
    async with http.post("/v1/webhook_endpoints", json=body, headers=headers) as response:
        assert (await response.json())["secret"] == made["secret"], "a replay shows it again"
    rows = await database.fetch(
        """
        SELECT secret AS stored FROM webhook_endpoints
         UNION ALL
        SELECT unnest(previous_secrets) FROM webhook_endpoints
         UNION ALL
        SELECT body FROM request_answers
        """
    )
    assert len(rows) >= 3
    for row in rows:
        assert row["stored"].startswith("sealed:")
        assert not any(shown["secret"] in row["stored"] for shown in (made, rotated))


async def test_after_all_that_the_rules_about_deliveries_hold(database: Database) -> None:
    await assert_deliveries(database)
