"""Stripe's official Python SDK uses Florin as it uses Stripe."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import stripe

from shared.db import Database
from tests.breaking_proxy import open_breaking_proxy
from tests.conftest import KEY
from tests.invariants import assert_invariants
from tests.receiver import Receiver
from tests.system import System, Urls, eventually


@pytest.fixture(scope="module")
async def system_url(urls: Urls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A Florin that requires keys."""
    directory: Path = tmp_path_factory.mktemp("stripe")
    system = System(urls, directory, FLORIN_AUTH="required")
    try:
        await system.start()
        yield system.url
    finally:
        await system.stop()


@pytest.fixture(scope="module")
def client(system_url: str) -> stripe.StripeClient:
    """The SDK, pointed at it."""
    return client_of(system_url, KEY)


def client_of(url: str, key: str) -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": f"{url}/api"}, max_network_retries=0)


def code_of(error: stripe.StripeError) -> str:
    code: str = error.json_body["error"]["code"]  # type: ignore[index]
    return code


async def settled(client: stripe.StripeClient, id_: str) -> stripe.Charge:
    async def is_settled() -> stripe.Charge | None:
        charge = await asyncio.to_thread(client.v1.charges.retrieve, id_)
        return charge if charge.status != "pending" else None

    charge: stripe.Charge = await eventually(is_settled)
    return charge


async def test_a_charge_is_created_and_succeeds(client: stripe.StripeClient) -> None:
    made = await asyncio.to_thread(
        client.v1.charges.create,
        {
            "amount": 1000,
            "currency": "usd",
            "customer": "cust_123",
            "description": "Tea & cake",
            "metadata": {"order": "7", "naïve": "ja"},
        },
    )
    assert (made.object, made.amount, made.currency, made.customer, made.status) == (
        "charge", 1000, "usd", "cust_123", "pending",
    )  # fmt: skip
    assert made.metadata is not None
    assert (made.metadata["order"], made.metadata["naïve"]) == ("7", "ja")
    charge = await settled(client, made.id)
    assert (charge.status, charge.paid, charge.captured, charge.amount_captured) == (
        "succeeded", True, True, 1000,
    )  # fmt: skip
    assert charge.description == "Tea & cake"
    assert charge.failure_code is None
    transaction = await asyncio.to_thread(
        client.v1.balance_transactions.retrieve, str(charge.balance_transaction)
    )
    assert (transaction.source, transaction.amount, transaction.net, transaction.type) == (
        charge.id, 1000, 1000, "charge",
    )  # fmt: skip
    balance = await asyncio.to_thread(client.v1.balance.retrieve)
    assert (1000, "usd") in [(part.amount, part.currency) for part in balance.available]


async def test_a_decline_ends_failed_with_its_code(client: stripe.StripeClient) -> None:
    made = await asyncio.to_thread(client.v1.charges.create, {"amount": 99002, "currency": "usd"})
    charge = await settled(client, made.id)
    assert (charge.status, charge.paid, charge.failure_code) == (
        "failed", False, "insufficient_funds",
    )  # fmt: skip


async def test_a_charge_and_a_payment_are_one_object(
    client: stripe.StripeClient, system_url: str
) -> None:
    made = await asyncio.to_thread(client.v1.charges.create, {"amount": 1, "currency": "kwd"})
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(system_url, headers=headers) as http,
        http.get(f"/api/v1/payments/{made.id}") as response,
    ):
        payment = (await response.json())["payment"]
    assert (payment["id"], payment["amount"], payment["user_id"]) == (made.id, "0.001", None)


async def test_lists_page_by_themselves_over_250_charges(client: stripe.StripeClient) -> None:
    before = {c.id for c in await _all_charges(client)}

    def make(n: int) -> str:
        return client.v1.charges.create(
            {"amount": n + 1, "currency": "jpy", "customer": "pager"}
        ).id

    made = [await asyncio.to_thread(make, n) for n in range(250)]
    found = await _all_charges(client)
    assert [c.id for c in found if c.id not in before] == made[::-1]
    of_pager = await asyncio.to_thread(
        client.v1.charges.list, {"customer": "pager", "limit": 100, "ending_before": made[0]}
    )
    assert [c.id for c in of_pager.data] == made[1:101][::-1]


async def _all_charges(client: stripe.StripeClient) -> list[stripe.Charge]:
    def walk() -> list[stripe.Charge]:
        return list(client.v1.charges.list({"limit": 100}).auto_paging_iter())

    return await asyncio.to_thread(walk)


async def test_a_repeated_key_is_one_charge_and_another_body_is_an_idempotency_error(
    client: stripe.StripeClient,
) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "order-7"}

    def make(amount: int) -> str:
        return client.v1.charges.create({"amount": amount, "currency": "usd"}, options).id

    ids = await asyncio.gather(*(asyncio.to_thread(make, 700) for _ in range(10)))
    assert len(set(ids)) == 1
    with pytest.raises(stripe.IdempotencyError) as refused:
        await asyncio.to_thread(make, 701)
    assert refused.value.http_status == 400


async def test_errors_are_the_exceptions_that_the_sdk_has_for_them(
    client: stripe.StripeClient, system_url: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as invalid:
        await asyncio.to_thread(client.v1.charges.create, {"amount": -1, "currency": "usd"})
    assert (invalid.value.param, invalid.value.http_status) == ("amount", 400)
    assert invalid.value.request_id is not None
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await asyncio.to_thread(client.v1.charges.retrieve, "pay_none")
    assert (missing.value.code, missing.value.http_status) == ("resource_missing", 404)
    stranger = client_of(system_url, "sk_test_of_nobody_at_all_1234")
    with pytest.raises(stripe.AuthenticationError):
        await asyncio.to_thread(stranger.v1.charges.list)


async def refunded(client: stripe.StripeClient, id_: str) -> stripe.Refund:
    async def is_settled() -> stripe.Refund | None:
        refund = await asyncio.to_thread(client.v1.refunds.retrieve, id_)
        return refund if refund.status != "pending" else None

    refund: stripe.Refund = await eventually(is_settled)
    return refund


async def test_refunds_in_part_and_in_full(client: stripe.StripeClient) -> None:
    made = await asyncio.to_thread(client.v1.charges.create, {"amount": 10_000, "currency": "sek"})
    await settled(client, made.id)
    part = await asyncio.to_thread(
        client.v1.refunds.create,
        {
            "charge": made.id,
            "amount": 3_000,
            "reason": "requested_by_customer",
            "metadata": {"ticket": "12"},
        },
    )
    assert (part.object, part.amount, part.charge, part.currency, part.status, part.reason) == (
        "refund", 3_000, made.id, "sek", "pending", "requested_by_customer",
    )  # fmt: skip
    assert part.metadata is not None
    assert part.metadata["ticket"] == "12"
    with pytest.raises(stripe.InvalidRequestError) as too_much:
        await asyncio.to_thread(client.v1.refunds.create, {"charge": made.id, "amount": 7_001})
    assert (too_much.value.code, too_much.value.param) == ("amount_too_large", "amount")
    rest = await asyncio.to_thread(client.v1.refunds.create, {"charge": made.id})
    assert rest.amount == 7_000
    done = await refunded(client, part.id)
    assert done.status == "succeeded"
    charge = await asyncio.to_thread(
        client.v1.charges.retrieve, made.id, {"expand": ["balance_transaction"]}
    )
    assert (charge.amount_refunded, charge.refunded) == (10_000, True)
    assert isinstance(charge.balance_transaction, stripe.BalanceTransaction)
    assert charge.balance_transaction.amount == 10_000
    await refunded(client, rest.id)
    listed = await asyncio.to_thread(client.v1.refunds.list, {"charge": made.id})
    assert [r.id for r in listed.data] == [rest.id, part.id]
    moved = await asyncio.to_thread(
        client.v1.balance_transactions.list, {"currency": "sek", "type": "refund"}
    )
    assert sorted((t.amount, t.source) for t in moved.data) == [
        (-7_000, rest.id), (-3_000, part.id),
    ]  # fmt: skip
    balance = await asyncio.to_thread(client.v1.balance.retrieve)
    assert [(m.amount, m.currency) for m in balance.available if m.currency == "sek"] == [
        (0, "sek")
    ]
    assert [m.amount for m in balance.pending if m.currency == "sek"] == [0]


async def test_a_retry_after_a_lost_answer_is_the_same_charge(system_url: str) -> None:
    async with open_breaking_proxy(system_url) as proxy:
        client = stripe.StripeClient(
            KEY, base_addresses={"api": f"{proxy.url}/api"}, max_network_retries=2
        )
        proxy.lose = 2
        made = await asyncio.to_thread(
            client.v1.charges.create,
            {"amount": 4321, "currency": "usd", "customer": "retried"},
        )
    assert len(proxy.keys) == 3
    assert len(set(proxy.keys)) == 1, "the SDK sends one key with every try"
    assert proxy.replayed == [None, "true", "true"]
    direct = client_of(system_url, KEY)
    listed = await asyncio.to_thread(direct.v1.charges.list, {"customer": "retried"})
    assert [charge.id for charge in listed.data] == [made.id]


async def test_refusals_that_pass_are_the_exceptions_for_them(
    urls: Urls, database: Database, tmp_path: Path
) -> None:
    strict = System(
        urls,
        tmp_path,
        FLORIN_AUTH="local",
        FLORIN_RATE_LIMIT="0.01",
        FLORIN_RATE_BURST="3",
        FLORIN_ACCEPT_QUEUE="1",
    )
    api = strict.services["api"]
    try:
        await api.start(30)
        client = client_of(strict.url, KEY)
        foreign: stripe.RequestOptions = {"headers": {"Origin": "https://evil.example"}}
        with pytest.raises(stripe.PermissionError) as forbidden:
            await asyncio.to_thread(client.v1.charges.list, {}, foreign)
        assert (forbidden.value.http_status, code_of(forbidden.value)) == (403, "origin_not_local")

        def make(user: str) -> object:
            options: stripe.RequestOptions = {"headers": {"X-User-ID": user}}
            return client.v1.charges.create({"amount": 1, "currency": "usd"}, options)

        # While the table is locked one batch waits for it, one request waits for the batch, and
        # whoever comes then is told to come again.
        async with database.transaction() as lock:
            await lock.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
            asked = [asyncio.create_task(asyncio.to_thread(make, f"user {n}")) for n in range(6)]
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            refused = [task.exception() for task in done]
        assert all(type(error) is stripe.APIError for error in refused), refused
        assert {error.http_status for error in refused if isinstance(error, stripe.APIError)} == {
            503
        }
        await asyncio.gather(*asked, return_exceptions=True)
        for _ in range(3):
            await asyncio.to_thread(make, "hasty")
        with pytest.raises(stripe.RateLimitError) as limited:
            await asyncio.to_thread(make, "hasty")
        assert (limited.value.http_status, code_of(limited.value)) == (429, "rate_limit_exceeded")
    finally:
        await api.stop()
    with pytest.raises(stripe.APIConnectionError):
        await asyncio.to_thread(client_of(strict.url, KEY).v1.balance.retrieve)


async def test_endpoints_are_changed_and_secrets_are_shown_once(
    client: stripe.StripeClient,
) -> None:
    made = await asyncio.to_thread(
        client.v1.webhook_endpoints.create,
        {
            "url": "http://127.0.0.1:1/a",
            "enabled_events": ["*"],
            "metadata": {"a": "1", "b": "2"},
            "description": "first",
        },
    )
    assert str(made.secret).startswith("whsec_")
    changed = await asyncio.to_thread(
        client.v1.webhook_endpoints.update,
        made.id,
        {
            "url": "http://127.0.0.1:1/b",
            "enabled_events": ["refund.failed"],
            "metadata": {"a": ""},
        },
    )
    assert (changed.url, changed.enabled_events, changed.description) == (
        "http://127.0.0.1:1/b", ["refund.failed"], "first",
    )  # fmt: skip
    found = await asyncio.to_thread(client.v1.webhook_endpoints.retrieve, made.id)
    assert found.metadata.to_dict() == {"b": "2"}
    assert getattr(found, "secret", None) is None
    await asyncio.to_thread(client.v1.webhook_endpoints.delete, made.id)


async def test_webhooks_are_subscribed_delivered_verified_and_listed(
    client: stripe.StripeClient, receiver: Receiver
) -> None:
    endpoint = await asyncio.to_thread(
        client.v1.webhook_endpoints.create,
        {"url": receiver.url, "enabled_events": ["payment.completed", "payment.failed"]},  # type: ignore[list-item]
    )
    assert endpoint.secret is not None
    made = await asyncio.to_thread(client.v1.charges.create, {"amount": 500, "currency": "usd"})
    await receiver.wait_until(lambda: made.id in receiver.times("payment.completed"))
    [heard] = [h for h in receiver.heard if h.event["data"]["object"]["id"] == made.id]
    event = stripe.Webhook.construct_event(
        heard.body, heard.headers["Stripe-Signature"], endpoint.secret
    )
    stored = await asyncio.to_thread(client.v1.events.retrieve, event.id)
    assert (stored.type, stored.data.object["id"]) == ("payment.completed", made.id)
    listed = await asyncio.to_thread(client.v1.webhook_endpoints.list)
    assert [e.id for e in listed.data] == [endpoint.id]
    deleted = await asyncio.to_thread(client.v1.webhook_endpoints.delete, endpoint.id)
    assert deleted.deleted is True
    with pytest.raises(stripe.InvalidRequestError):
        await asyncio.to_thread(client.v1.webhook_endpoints.retrieve, endpoint.id)


async def test_after_all_that_every_invariant_holds(
    client: stripe.StripeClient, database: Database
) -> None:
    await assert_invariants(database)
