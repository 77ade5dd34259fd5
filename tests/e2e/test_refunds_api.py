"""Refunds by HTTP, the life of a payment, and what is counted: by the curl lines of small shops."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from shared.db import Database
from tests.invariants import assert_invariants
from tests.receiver import Receiver
from tests.system import System, eventually


@pytest.fixture(scope="module")
async def http(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(system.url) as session:
        yield session


async def get(http: aiohttp.ClientSession, path: str, **query: Any) -> Any:
    async with http.get(path, params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def post(http: aiohttp.ClientSession, path: str, **body: Any) -> tuple[int, Any]:
    async with http.post(path, json=body) as response:
        return response.status, await response.json()


async def settled(http: aiohttp.ClientSession, path: str) -> Any:
    async def is_settled() -> Any:
        found = await get(http, path)
        return found if found["status"] != "pending" else None

    return await eventually(is_settled)


async def charge(http: aiohttp.ClientSession, amount: int, currency: str = "usd") -> str:
    """The id of a charge that succeeded."""
    _, made = await post(http, "/api/v1/charges", amount=amount, currency=currency)
    found = await settled(http, f"/api/v1/charges/{made['id']}")
    assert found["status"] == "succeeded"
    id_: str = made["id"]
    return id_


async def balance(http: aiohttp.ClientSession, currency: str) -> tuple[int, int]:
    """What is available and what is pending, in minor units."""
    shown = await get(http, "/api/v1/balance")
    return tuple(  # type: ignore[return-value]
        next((m["amount"] for m in shown[part] if m["currency"] == currency), 0)
        for part in ("available", "pending")
    )


@pytest.mark.parametrize("named", ["transaction_id", "charge", "payment_id"])
async def test_a_charge_is_refunded_in_part_and_then_in_full(
    named: str, http: aiohttp.ClientSession
) -> None:
    id_ = await charge(http, 1000)
    status, part = await post(http, "/api/v1/refunds", **{named: id_}, amount=300, reason="torn")
    assert (status, part["object"], part["charge"], part["amount"], part["reason"]) == (
        200, "refund", id_, 300, "torn",
    )  # fmt: skip
    done = await settled(http, f"/api/v1/refunds/{part['id']}")
    assert done["status"] == "succeeded"
    moved = await get(http, f"/v1/balance_transactions/{done['balance_transaction']}")
    assert (moved["amount"], moved["type"], moved["source"]) == (-300, "refund", part["id"])
    shown = await get(http, f"/v1/charges/{id_}")
    assert (shown["amount_refunded"], shown["refunded"], shown["paid"]) == (300, False, True)
    _, rest = await post(http, "/v1/refunds", **{named: id_})
    assert rest["amount"] == 700
    shown = await get(http, f"/v1/charges/{id_}")
    assert (shown["amount_refunded"], shown["refunded"]) == (1000, True)
    payment = (await get(http, f"/api/v1/payments/{id_}"))["payment"]
    assert (payment["amount_refunded"], payment["amount_refunded_minor"]) == ("10.00", 1000)


async def test_what_was_just_accepted_is_seen_by_every_read(
    http: aiohttp.ClientSession, database: Database
) -> None:
    # Nothing is settled meanwhile: the gateway never answers to these amounts.
    before = await balance(http, "eur")
    _, made = await post(http, "/v1/charges", amount=99011, currency="eur")
    assert (await get(http, "/v1/charges", limit=1))["data"][0]["id"] == made["id"]
    assert (await get(http, "/api/v1/payments", limit=1))["data"][0]["id"] == made["id"]
    assert await balance(http, "eur") == (before[0], before[1] + 99011)
    paid = await charge(http, 200_000, "eur")
    available, pending = await balance(http, "eur")
    _, refund = await post(http, "/v1/refunds", charge=paid, amount=99011)
    assert (await get(http, "/v1/refunds", limit=1))["data"][0]["id"] == refund["id"]
    assert (await get(http, "/v1/refunds", charge=paid))["data"][0]["id"] == refund["id"]
    assert (await get(http, f"/v1/charges/{paid}"))["amount_refunded"] == 99011
    assert await balance(http, "eur") == (available, pending - 99011)


async def test_a_refund_that_the_gateway_declines_gives_its_reservation_back(
    http: aiohttp.ClientSession, merchant: Receiver
) -> None:
    id_ = await charge(http, 200_000)
    _, made = await post(http, "/v1/refunds", charge=id_, amount=99004)
    refund = await settled(http, f"/v1/refunds/{made['id']}")
    assert (refund["status"], refund["failure_reason"]) == ("failed", "expired_or_canceled_card")
    assert (await get(http, f"/v1/charges/{id_}"))["amount_refunded"] == 0
    await merchant.wait_until(lambda: made["id"] in merchant.times("refund.failed"))
    _, again = await post(http, "/v1/refunds", charge=id_)
    assert again["amount"] == 200_000
    await merchant.wait_until(lambda: again["id"] in merchant.times("refund.completed"))


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "parameter_missing", "charge"),
        ({"charge": "x", "payment_id": "x"}, 400, "parameter_invalid", "charge"),
        ({"charge": "pay_none"}, 404, "resource_missing", "charge"),
        ({"transaction_id": "pay_none"}, 404, "resource_missing", "transaction_id"),
        ({"charge": "{paid}", "amount": 0}, 400, "parameter_invalid", "amount"),
        ({"charge": "{paid}", "amount": "3.00"}, 400, "parameter_invalid", "amount"),
        ({"charge": "{paid}", "amount": 1001}, 400, "amount_too_large", "amount"),
        ({"charge": "{paid}", "colour": 1}, 400, "parameter_unknown", "colour"),
        ({"charge": "{paid}", "expand": ["x"]}, 400, "parameter_invalid", "expand[0]"),
        ({"charge": "{declined}"}, 400, "charge_not_refundable", "charge"),
        ({"charge": "{refunded}"}, 400, "charge_already_refunded", "charge"),
    ],
)
async def test_a_refund_that_cannot_be_says_which_parameter_and_why(
    body: dict[str, Any],
    status: int,
    code: str,
    param: str,
    http: aiohttp.ClientSession,
    charges: dict[str, str],
) -> None:
    named = body.get("charge", "").strip("{}")
    if named in charges:
        body = body | {"charge": charges[named]}
    answered, answer = await post(http, "/v1/refunds", **body)
    error = answer["error"]
    assert (answered, error["code"], error.get("param")) == (status, code, param)
    assert error["type"] == "invalid_request_error"


@pytest.fixture(scope="module")
async def charges(http: aiohttp.ClientSession) -> dict[str, str]:
    """A charge in every state that matters to a refund."""
    paid, refunded = await charge(http, 1000), await charge(http, 1000)
    await post(http, "/v1/refunds", charge=refunded)
    _, declined = await post(http, "/v1/charges", amount=99001, currency="usd")
    await settled(http, f"/v1/charges/{declined['id']}")
    return {"paid": paid, "refunded": refunded, "declined": declined["id"]}


async def test_lists_of_refunds_are_filtered_and_paged(http: aiohttp.ClientSession) -> None:
    id_ = await charge(http, 1000)
    made = [(await post(http, "/v1/refunds", charge=id_, amount=n))[1]["id"] for n in range(1, 6)]
    of_charge = await get(http, "/v1/refunds", payment_id=id_, limit=3)
    assert [r["id"] for r in of_charge["data"]] == made[:1:-1]
    assert (of_charge["has_more"], of_charge["url"]) == (True, "/v1/refunds")
    older = await get(http, "/v1/refunds", charge=id_, starting_after=made[2])
    assert [r["id"] for r in older["data"]] == made[1::-1]
    for refund in made:
        await settled(http, f"/v1/refunds/{refund}")
    done = await get(http, "/v1/refunds", charge=id_, status="succeeded")
    assert len(done["data"]) == 5
    assert (await get(http, "/v1/refunds", charge=id_, status="failed"))["data"] == []
    shown = await get(http, "/v1/refunds", charge=id_, **{"expand[]": "data.charge"}, limit=1)
    assert shown["data"][0]["charge"]["id"] == id_
    shown = await get(http, f"/v1/refunds/{made[0]}", **{"expand[0]": "balance_transaction"})
    assert shown["balance_transaction"]["net"] == -1


async def test_every_step_of_a_payment_is_told_in_order(
    http: aiohttp.ClientSession, merchant: Receiver
) -> None:
    id_ = await charge(http, 2000)
    _, refund = await post(http, "/v1/refunds", charge=id_, amount=500)
    await merchant.wait_until(lambda: refund["id"] in merchant.times("refund.completed"))
    await merchant.wait_until(lambda: id_ in merchant.times("payment.completed"))

    async def all_recorded() -> Any:
        told = await get(http, f"/api/v1/payments/{id_}/timeline")
        attempts = [s for s in told["timeline"] if s["step"] == "delivery_attempted"]
        return told if len(attempts) >= 3 else None

    told = await eventually(all_recorded)
    steps = told["timeline"]
    assert told["payment_id"] == id_
    assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)
    of_payment = [s for s in steps if "refund_id" not in s["detail"]]
    of_refund = [s for s in steps if s["detail"].get("refund_id") == refund["id"]]
    assert len(of_payment) + len(of_refund) == len(steps)
    assert {s["step"] for s in of_payment} == {
        "payment_accepted", "taken_from_queue", "gateway_called", "transferred", "event",
        "delivery_attempted",
    }  # fmt: skip
    assert [s["step"] for s in of_refund if s["step"] != "delivery_attempted"] == [
        "refund_accepted", "gateway_called", "transferred", "event",
    ]  # fmt: skip
    [asked] = [s["detail"] for s in of_payment if s["step"] == "gateway_called"]
    assert (asked["question"], asked["outcome"], asked["gateway"]) == (
        "charge", "approved", "sandbox",
    )  # fmt: skip
    delivered = {s["detail"]["type"]: s["detail"] for s in steps if "status_code" in s["detail"]}
    assert delivered["payment.completed"]["status_code"] == 200
    assert delivered["refund.completed"]["number"] == 1
    async with http.get("/api/v1/payments/pay_none/timeline") as response:
        assert response.status == 404


async def test_a_question_that_had_no_answer_is_in_the_timeline(
    http: aiohttp.ClientSession,
) -> None:
    id_ = await charge(http, 99010)  # no answer to the first question, approved at the next
    steps = (await get(http, f"/api/v1/payments/{id_}/timeline"))["timeline"]
    asked = [s["detail"] for s in steps if s["step"] == "gateway_called"]
    assert [(a["question"], a["outcome"]) for a in asked] == [
        ("charge", "unknown"), ("lookup", "approved"),
    ]  # fmt: skip


async def test_metrics_count_charges_refunds_and_webhooks_by_outcome(
    http: aiohttp.ClientSession, merchant: Receiver
) -> None:
    async def counters() -> dict[str, int]:
        async with http.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        names = ("florin_charges_total", "florin_refunds_total", "florin_webhooks_total")
        return {
            name: int(value)
            for name, value in (line.split(" ") for line in lines if line.startswith(names))
        }

    before = await counters()
    paid = await charge(http, 5000)
    _, declined = await post(http, "/v1/charges", amount=99001, currency="usd")
    await settled(http, f"/v1/charges/{declined['id']}")
    _, refund = await post(http, "/v1/refunds", charge=paid)
    await merchant.wait_until(lambda: refund["id"] in merchant.times("refund.completed"))

    async def counted() -> bool:
        after = await counters()
        grown = {name: after[name] - before[name] for name in after}
        return (
            grown['florin_charges_total{outcome="completed"}'] == 1
            and grown['florin_charges_total{outcome="failed"}'] == 1
            and grown['florin_refunds_total{outcome="completed"}'] == 1
            and grown['florin_webhooks_total{outcome="delivered"}'] == 5
        )

    await eventually(counted)


async def test_after_all_that_every_invariant_holds(database: Database) -> None:
    async def all_told() -> bool:
        return not await database.fetchval(
            """
            SELECT 1 FROM payments WHERE processed_at IS NULL AND unknown_since IS NULL
             UNION ALL
            SELECT 1 FROM refunds WHERE processed_at IS NULL AND unknown_since IS NULL
             UNION ALL
            SELECT 1 FROM outbox
             UNION ALL
            SELECT 1 FROM deliveries WHERE lease_until IS NOT NULL
             LIMIT 1
            """
        )

    await eventually(all_told)
    await assert_invariants(database)
