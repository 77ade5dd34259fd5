"""A payment is accepted, settled and told: the whole chain, as processes."""

import signal

import aiohttp
import stripe
from standardwebhooks import Webhook

from shared.db import Database
from tests.invariants import assert_invariants, open_payments
from tests.receiver import Receiver
from tests.system import Load, System, eventually, payment_body, post_payments


async def test_a_payment_is_accepted_settled_and_told(system: System, merchant: Receiver) -> None:
    async with aiohttp.ClientSession(system.url) as session:
        async with session.post(
            "/api/v1/payments", json=payment_body("user123"), headers={"X-User-ID": "user123"}
        ) as response:
            assert response.status == 202
            accepted = await response.json()
            assert accepted["status"] == "pending"
            assert response.headers["Location"] == f"/api/v1/payments/{accepted['payment_id']}"

        async def settled() -> dict[str, str] | None:
            async with session.get(response.headers["Location"]) as found:
                payment: dict[str, str] = (await found.json())["payment"]
                return payment if payment["status"] == "completed" else None

        payment = await eventually(settled)
    assert payment["amount"] == "100.50"
    assert payment["amount_minor"] == 10050

    await merchant.wait_until(lambda: len(merchant.heard) >= 2)
    assert [heard.event["type"] for heard in merchant.heard] == [
        "payment.processing",
        "payment.completed",
    ]
    for heard in merchant.heard:
        Webhook(merchant.secret).verify(heard.body, heard.headers)
        event = stripe.Webhook.construct_event(
            heard.body, heard.headers["Stripe-Signature"], merchant.secret
        )
        assert event.data.object["id"] == payment["id"]
    assert merchant.heard[1].event["data"]["object"] == payment


async def test_a_thousand_at_once_are_all_accepted_settled_and_told_once(
    system: System, merchant: Receiver, database: Database
) -> None:
    accepted, others = await post_payments(
        system.url,
        [payment_body(f"user{n}", f"{n + 1}.{n % 100:02}") for n in range(1000)],
        connections=100,
    )
    assert (len(accepted), others) == (1000, [])
    await merchant.wait_until(lambda: len(merchant.heard) >= 2000, 60)
    for type_ in ("payment.processing", "payment.completed"):
        told = merchant.times(type_)
        assert set(told) == set(accepted)
        assert set(told.values()) == {1}
    assert await open_payments(database) == 0
    await assert_invariants(database)


async def test_a_declined_payment_fails_with_a_code_and_moves_nothing(
    system: System, database: Database
) -> None:
    [id_], _ = await post_payments(system.url, [payment_body("poor", "990.02")])

    async def failed() -> bool:
        return bool(
            await database.fetchval(
                "SELECT failure_code = 'insufficient_funds' FROM payments WHERE id = $1", id_
            )
        )

    await eventually(failed)
    await assert_invariants(database)


async def test_silence_of_the_gateway_is_unknown_and_asked_again_until_it_answers(
    system: System, database: Database
) -> None:
    [once, forever], _ = await post_payments(
        system.url, [payment_body("a", "990.10"), payment_body("b", "990.11")], connections=1
    )

    async def state(id_: str) -> tuple[str, bool]:
        row = await database.fetchrow(
            "SELECT status, unknown_since IS NOT NULL AS unknown FROM payments WHERE id = $1", id_
        )
        assert row is not None
        return row["status"], row["unknown"]

    async def both_as_expected() -> bool:
        return await state(once) == ("completed", False) and await state(forever) == (
            "processing",
            True,
        )

    await eventually(both_as_expected)
    await assert_invariants(database)


async def test_a_service_that_is_told_to_stop_finishes_what_it_holds(
    system: System, merchant: Receiver, database: Database
) -> None:
    async with Load(system.url).running() as load:
        for name in ("notifier", "processor", "api"):
            await load.more(200)
            pid = system.kill(name, signal.SIGTERM)
            system.kill(name, signal.SIGTERM)  # a second one is harmless
            await system.wait_for_restart(name, pid)
            assert f"{name} ended with status 0" in " ".join(system.said)
        await load.more(100)
    accepted = load.accepted.values()
    await merchant.wait_until(lambda: merchant.has_heard_the_outcome_of(accepted), 60)
    told = merchant.times("payment.completed")
    assert set(told.values()) == {1}, "what is drained is told once"
    assert set(told) == set(accepted), "nothing was accepted that no client knows of"
    await assert_invariants(database)
