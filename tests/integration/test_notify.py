"""Telling: every subscribed endpoint hears every event, attempts are fenced, nothing is lost."""

import asyncio
import email.utils
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from services.api.store.deliveries import queue_redelivery
from services.notifier.policy import Delivered, Result, Retry
from services.notifier.store.attempts import Finished, claim_attempts, record_attempts
from services.notifier.store.opening import open_deliveries
from shared.broker import Consumer, Delivery, Outgoing
from shared.db import Database
from shared.messages import DELIVERIES, EVENTS, Item, decode, encode
from shared.topology import (
    COMMANDS,
    DEAD,
    NOTIFIER_DEAD,
    NOTIFIER_DELIVERIES,
    REASON_HEADER,
    RETRIES,
    describe,
)
from tests.integration.test_broker import consuming, purge, take_all
from tests.invariants import assert_deliveries
from tests.receiver import Heard, Receiver
from tests.system import RETRY_DELAYS, Urls, eventually
from tests.telling import (
    ACCOUNT,
    SECRET,
    Notifier,
    answering,
    attempts_of,
    deliveries,
    happen,
    message,
    notifying,
    subscribe,
    unsubscribe,
)


@pytest.fixture
async def notifier(empty: Database, urls: Urls) -> AsyncIterator[Notifier]:
    async with notifying(empty, urls.amqp) as notifier:
        yield notifier


async def test_each_endpoint_hears_what_it_subscribed_to_with_the_stored_bytes(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, f"{receiver.url}?all")
    await subscribe(empty, f"{receiver.url}?failed", "payment.failed")
    completed, failed = await happen(empty), await happen(empty, "payment.failed")
    await notifier.tell(completed, failed)
    assert sorted(heard.event["type"] for heard in receiver.heard) == [
        "payment.completed",
        "payment.failed",
        "payment.failed",
    ]
    stored = await empty.fetchval("SELECT body FROM events WHERE id = $1", completed.id)
    [heard] = [h for h in receiver.heard if h.headers["webhook-id"] == completed.id]
    assert heard.body == stored.encode()
    Webhook(SECRET).verify(heard.body, heard.headers)
    assert {d["status"] for d in await deliveries(empty)} == {"delivered"}
    await assert_deliveries(empty)


async def test_an_envelope_of_events_waits_for_no_spacing(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    notifier.events._openings._spacing = 3600.0
    async with asyncio.timeout(5):
        for _ in range(3):
            await notifier.tell(await happen(empty), await happen(empty))
    assert len(receiver.heard) == 6


async def test_an_event_that_comes_twice_at_once_is_told_once(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    items = [await happen(empty) for _ in range(10)]
    await asyncio.gather(*(notifier.tell(*items) for _ in range(8)))
    assert len(receiver.heard) == 10
    assert [d["attempts"] for d in await deliveries(empty)] == [1] * 10
    await assert_deliveries(empty)


async def test_only_endpoints_that_were_subscribed_when_it_happened_hear_of_it(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    gone = await subscribe(empty, f"{receiver.url}?gone")
    await unsubscribe(empty, gone)
    item = await happen(empty)
    await subscribe(empty, f"{receiver.url}?late")
    await notifier.tell(item)
    assert receiver.heard == []
    await assert_deliveries(empty)


async def test_a_failure_is_recorded_and_queued_for_its_delay(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    receiver.answer = answering(500)
    await notifier.tell(await happen(empty))
    [delivery] = await deliveries(empty)
    assert (delivery["status"], delivery["attempts"], delivery["lease_until"]) == (
        "retrying",
        1,
        None,
    )
    [attempt] = await attempts_of(empty)
    assert (attempt["number"], attempt["status_code"], attempt["response_start"]) == (
        1,
        500,
        "no\ufffdpe",
    )
    row = await empty.fetchrow("SELECT exchange, routing_key, body FROM outbox")
    assert row is not None
    assert (row["exchange"], row["routing_key"]) == (RETRIES, "250ms")
    assert decode(row["body"].encode(), DELIVERIES) == [Item(ACCOUNT, delivery["id"])]
    await assert_deliveries(empty)


async def test_the_whole_schedule_ends_in_the_dead_queue_with_the_reason(
    notifier: Notifier, empty: Database, receiver: Receiver, urls: Urls
) -> None:
    await subscribe(empty, receiver.url)
    receiver.answer = answering(500)
    relaying = asyncio.create_task(notifier.relay.run())
    due = Consumer(urls.amqp, NOTIFIER_DELIVERIES, notifier.due.handle, name="t")
    async with consuming(due):
        await notifier.tell(await happen(empty))

        async def is_dead() -> bool:
            return [d["status"] for d in await deliveries(empty)] == ["dead"]

        await eventually(is_dead)
    notifier.relay.stop()
    await relaying
    attempts = await attempts_of(empty)
    assert [attempt["number"] for attempt in attempts] == [1, 2, 3, 4]
    gaps = [
        (later["started_at"] - earlier["started_at"]).total_seconds()
        for earlier, later in itertools.pairwise(attempts)
    ]
    assert all(gap >= delay for gap, delay in zip(gaps, RETRY_DELAYS, strict=True)), gaps
    [letter] = await take_all(urls.amqp, NOTIFIER_DEAD)
    assert "4 attempts failed" in str(letter.headers[REASON_HEADER])
    await assert_deliveries(empty)


async def test_a_retry_that_succeeds_is_the_end(
    notifier: Notifier, empty: Database, receiver: Receiver, urls: Urls
) -> None:
    await subscribe(empty, receiver.url)
    receiver.answer = answering(503, 200)
    relaying = asyncio.create_task(notifier.relay.run())
    due = Consumer(urls.amqp, NOTIFIER_DELIVERIES, notifier.due.handle, name="t")
    async with consuming(due):
        await notifier.tell(await happen(empty))

        async def is_delivered() -> bool:
            return [d["status"] for d in await deliveries(empty)] == ["delivered"]

        await eventually(is_delivered)
    notifier.relay.stop()
    await relaying
    first, second = receiver.heard
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    await assert_deliveries(empty)


async def test_losing_every_queue_loses_no_webhook(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    untold = [await happen(empty) for _ in range(30)]
    opened = [await happen(empty) for _ in range(5)]
    await open_deliveries(empty, opened)  # and the notifier died here
    assert await notifier.sweep() == 30
    assert {heard.headers["webhook-id"] for heard in receiver.heard} == {
        item.id for item in untold + opened
    }
    receiver.answer = answering(500, 200)
    await notifier.tell(await happen(empty))
    await empty.execute("DELETE FROM outbox")  # published, and then the retry queue was purged

    async def all_delivered() -> bool:
        await notifier.sweep()
        return {d["status"] for d in await deliveries(empty)} == {"delivered"}

    await eventually(all_delivered, 5)
    assert await notifier.sweep() == 0
    await assert_deliveries(empty)


async def test_purging_every_queue_loses_no_webhook(
    notifier: Notifier, empty: Database, receiver: Receiver, urls: Urls
) -> None:
    await subscribe(empty, receiver.url)
    receiver.answer = answering(500)
    retried = await happen(empty)
    await notifier.tell(retried)  # its message goes to a retry queue
    receiver.answer = answering(200)
    untold = await happen(empty)
    given_back = await happen(empty)
    [target] = (await open_deliveries(empty, [given_back]))[given_back.id] or []
    await notifier.publisher.publish(
        [
            Outgoing(EVENTS, "payment.completed", encode(EVENTS, [untold]).encode()),
            Outgoing(COMMANDS, DELIVERIES, encode(DELIVERIES, [target.item]).encode()),
        ]
    )
    while await notifier.relay.sweep_once(older_than=0.0):
        pass
    purged = [await purge(urls.amqp, queue.name) for queue in describe(RETRY_DELAYS).queues]
    assert sum(purged) == 3

    async def all_delivered() -> bool:
        await notifier.sweep()
        return [d["status"] for d in await deliveries(empty)] == ["delivered"] * 3

    await eventually(all_delivered, 10)
    assert {h.headers["webhook-id"] for h in receiver.heard} == {
        retried.id, untold.id, given_back.id,
    }  # fmt: skip
    await assert_deliveries(empty)


async def test_a_lease_outlives_the_deadline_of_its_attempt(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    leases = []

    async def look(_: Heard) -> web.Response:
        leases.append(
            await empty.fetchval("SELECT extract(epoch FROM lease_until - now()) FROM deliveries")
        )
        return web.Response()

    receiver.answer = look
    await subscribe(empty, receiver.url)
    await notifier.tell(await happen(empty))
    assert leases[0] > notifier.attempts.timeout + 5, "with time to record what came of it"


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_a_floor_for_the_next_attempt(
    form: str, status: int, notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    asked = datetime.now(UTC) + timedelta(seconds=3600)
    value = "3600" if form == "seconds" else email.utils.format_datetime(asked, usegmt=True)

    async def later(_: Heard) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": value})

    receiver.answer = later
    await subscribe(empty, receiver.url)
    await notifier.tell(await happen(empty))
    [delivery] = await deliveries(empty)
    assert abs((delivery["next_attempt_at"] - asked).total_seconds()) < 10


async def test_nobody_attempts_what_another_has_leased(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    item = await happen(empty)
    [target] = (await open_deliveries(empty, [item]))[item.id] or []
    claims = await asyncio.gather(
        *(claim_attempts(empty, {target.item: None}, lease=60) for _ in range(10))
    )
    assert sum(len(claimed) for claimed in claims) == 1
    assert await notifier.attempts.attempt(target.item) is None
    assert receiver.heard == []


async def test_an_attempt_that_died_with_its_notifier_is_numbered_and_made_again(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    item = await happen(empty)
    [target] = (await open_deliveries(empty, [item]))[item.id] or []
    lost = (await claim_attempts(empty, {target.item: None}, lease=0.2))[target.item.id]

    async def swept() -> bool:
        return await notifier.sweep() > 0 and bool(receiver.heard)

    await eventually(swept, 5)
    attempts = await attempts_of(empty)
    assert [(a["number"], a["status_code"]) for a in attempts] == [(1, None), (2, 200)]
    assert "stopped before the outcome" in attempts[0]["error"]
    # The first notifier was not dead after all: its late outcome changes nothing.
    late = Finished(lost, Result(datetime.now(UTC), 1, 200), Delivered())
    await record_attempts(empty, [late])
    assert len(await attempts_of(empty)) == 2
    await assert_deliveries(empty)


async def test_a_retry_to_a_deleted_endpoint_is_not_made(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)
    receiver.answer = answering(500)
    await notifier.tell(await happen(empty))
    await unsubscribe(empty, endpoint)
    [delivery] = await deliveries(empty)

    async def is_dead() -> bool:
        await notifier.due.handle(message(DELIVERIES, Item(ACCOUNT, delivery["id"])))
        return [d["status"] for d in await deliveries(empty)] == ["dead"]

    await eventually(is_dead, 5)
    assert len(receiver.heard) == 1
    assert (await attempts_of(empty))[-1]["error"] == "the endpoint was deleted"
    letter = await empty.fetchrow("SELECT * FROM outbox WHERE exchange = $1", DEAD)
    assert letter is None, "nobody is left to tell, and a person could do nothing about it"
    await assert_deliveries(empty)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://10.1.2.3/hook", "FLORIN_WEBHOOK_ALLOWED_NETWORKS"),
        ("http://[::ffff:10.1.2.3]/hook", "FLORIN_WEBHOOK_ALLOWED_NETWORKS"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 is not public"),
        ("http://[::1]:1/hook", "::1 is not public"),
        ("http://127.0.0.1:1/hook", "Connect call failed"),
        ("http://8.8.8.8/hook", "FLORIN_WEBHOOK_ALLOW_HTTP"),
        ("HTTP://[2606:4700:4700::1111]/hook", "FLORIN_WEBHOOK_ALLOW_HTTP"),
    ],
)
async def test_an_endpoint_that_may_not_or_cannot_be_reached_is_a_failure_that_says_why(
    url: str, reason: str, notifier: Notifier, empty: Database
) -> None:
    await subscribe(empty, url)
    await notifier.tell(await happen(empty))
    [attempt] = await attempts_of(empty)
    assert attempt["status_code"] is None
    assert reason in attempt["error"]


async def test_a_redirect_is_a_failure_and_is_not_followed(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    async def redirect(_: Heard) -> web.Response:
        return web.Response(status=302, headers={"Location": receiver.url})

    receiver.answer = redirect
    await subscribe(empty, receiver.url)
    await notifier.tell(await happen(empty))
    assert len(receiver.heard) == 1
    assert [d["status"] for d in await deliveries(empty)] == ["retrying"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "not JSON"),
        (encode(EVENTS, [Item(ACCOUNT, "evt_none")]).encode(), "no event evt_none"),
    ],
)
async def test_a_poison_message_goes_to_the_dead_queue_with_the_reason(
    body: bytes, reason: str, notifier: Notifier, urls: Urls
) -> None:
    await notifier.events.handle(Delivery(body, {}, redelivered=False))
    [letter] = await take_all(urls.amqp, NOTIFIER_DEAD)
    assert reason in str(letter.headers[REASON_HEADER])


@pytest.mark.parametrize(
    "retry_after",
    ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "9" * 400, "-1", "nonsense"],
)
async def test_no_answer_of_an_endpoint_can_keep_its_attempt_from_being_recorded(
    retry_after: str, notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    async def answer(_: Heard) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": retry_after})

    receiver.answer = answer
    await subscribe(empty, receiver.url)
    await notifier.tell(await happen(empty))
    assert [d["status"] for d in await deliveries(empty)] == ["retrying"]
    await assert_deliveries(empty)


async def test_a_redelivery_by_hand_outlives_an_outcome_that_is_recorded_late(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    receiver.answer = answering(500, 200)
    await notifier.tell(await happen(empty))
    [row] = await deliveries(empty)
    item = Item(ACCOUNT, row["id"])
    await empty.execute("UPDATE deliveries SET next_attempt_at = now()")
    claimed = (await claim_attempts(empty, {item: None}, lease=0.0))[item.id]
    async with empty.transaction() as transaction:
        assert await queue_redelivery(transaction, ACCOUNT, item.id)
    late = Result(datetime.now(UTC), 1, 500)
    verdict = Retry(datetime(2030, 1, 1, tzinfo=UTC), RETRY_DELAYS[0])
    await record_attempts(empty, [Finished(claimed, late, verdict)])
    await notifier.due.handle(message(DELIVERIES, item))
    await notifier.dispatcher.idle()
    [row] = await deliveries(empty)
    assert (row["status"], row["attempts"]) == ("delivered", 3)
    assert [a["number"] for a in await attempts_of(empty)] == [1, 2, 3]
    await assert_deliveries(empty)


async def test_an_answer_that_is_not_http_is_explained_without_the_url(
    notifier: Notifier, empty: Database
) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-nonsense\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await subscribe(empty, f"http://127.0.0.1:{port}/hook?token=TOPSECRET")
    await notifier.tell(await happen(empty))
    [attempt] = await attempts_of(empty)
    assert "not HTTP" in attempt["error"]
    assert "TOPSECRET" not in attempt["error"]
    server.close()
