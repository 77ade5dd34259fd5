"""One endpoint's trouble is its own: it keeps nobody else waiting, and loses nothing itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from services.notifier import attempts, breaker, lane
from services.notifier.store.attempts import claim_attempts
from services.notifier.store.backlog import defer
from services.notifier.store.opening import open_deliveries
from shared.broker import Consumer
from shared.db import Database
from shared.event_types import ENDPOINT_DISABLED
from shared.messages import DELIVERIES, EVENTS, Item, decode
from shared.topology import NOTIFIER_DELIVERIES
from tests.integration.test_broker import consuming, take_all
from tests.invariants import assert_deliveries
from tests.receiver import Heard, Receiver, open_receiver
from tests.system import Urls, eventually
from tests.telling import (
    ACCOUNT,
    Notifier,
    answering,
    attempts_of,
    change,
    deliveries,
    endpoint_row,
    happen,
    message,
    notifying,
    statuses,
    subscribe,
    unsubscribe,
    until,
)


@pytest.fixture
async def notifier(empty: Database, urls: Urls) -> AsyncIterator[Notifier]:
    async with notifying(empty, urls.amqp) as notifier:
        yield notifier


@pytest.fixture
async def other() -> AsyncIterator[Receiver]:
    """Another merchant's server."""
    async with open_receiver() as receiver:
        yield receiver


class Silence:
    """Answers nothing until it is told to."""

    def __init__(self) -> None:
        self.broken = asyncio.Event()

    async def __call__(self, _: Heard) -> web.Response:
        await self.broken.wait()
        return web.Response()


async def test_an_endpoint_that_does_not_answer_keeps_no_message_and_nobody_else_waiting(
    empty: Database, urls: Urls, receiver: Receiver, other: Receiver
) -> None:
    silence = receiver.answer = Silence()
    await subscribe(empty, receiver.url)
    await subscribe(empty, other.url)
    async with notifying(empty, urls.amqp, timeout=60, places=20) as notifier:
        items = [await happen(empty) for _ in range(100)]
        async with asyncio.timeout(10):
            for item in items:  # each returns although nothing was answered
                await notifier.events.handle(message(EVENTS, item))
            await other.wait_until(lambda: len(other.heard) == len(items), 10)
        assert len(receiver.heard) <= 20 / 4 + 1, "alone, a quarter of the places"
        silence.broken.set()
        await notifier.dispatcher.idle()
    assert {heard.headers["webhook-id"] for heard in receiver.heard} == {i.id for i in items}
    assert set(await statuses(empty)) == {"delivered"}
    await assert_deliveries(empty)


async def test_thirty_silent_endpoints_do_not_keep_a_quick_one_waiting(
    empty: Database, urls: Urls, receiver: Receiver, other: Receiver
) -> None:
    silence = receiver.answer = Silence()
    await subscribe(empty, other.url)
    async with notifying(empty, urls.amqp, timeout=60, places=24) as notifier:
        await notifier.tell(await happen(empty))  # it has proved quick
        for number in range(30):
            await subscribe(empty, f"{receiver.url}?{number}")
        async with asyncio.timeout(10):
            for number in range(2, 8):  # one at a time, so that its lane is idle between them
                await notifier.events.handle(message(EVENTS, await happen(empty)))
                await other.wait_until(lambda n=number: len(other.heard) >= n, 5)  # type: ignore[misc]
        assert len(receiver.heard) <= 24 * 3 / 4
        silence.broken.set()
        await notifier.dispatcher.idle()
    assert set(await statuses(empty)) == {"delivered"}
    assert len(receiver.heard) == 30 * 6, "and who waited for a place has had it"
    await assert_deliveries(empty)


async def test_what_a_lane_does_not_take_waits_in_the_table_and_is_pulled_in_order(
    empty: Database, urls: Urls, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "MOST_WAITING", 3)
    silence = receiver.answer = Silence()
    await subscribe(empty, receiver.url)
    async with notifying(empty, urls.amqp, timeout=60, places=4) as notifier:
        items = [await happen(empty) for _ in range(40)]
        for item in items:
            await notifier.events.handle(message(EVENTS, item))
        waiting = [d for d in await deliveries(empty) if d["status"] == "retrying"]
        assert len(waiting) == 40 - 3 - 1
        assert {d["attempts"] for d in waiting} == {0}, "to wait spends no attempt"
        silence.broken.set()
        await notifier.dispatcher.idle()
    heard = [heard.headers["webhook-id"] for heard in receiver.heard]
    assert sorted(heard) == sorted(item.id for item in items)
    assert heard[4:] == sorted(heard[4:]), "from the table in order of time"
    assert {d["attempts"] for d in await deliveries(empty)} == {1}
    await assert_deliveries(empty)


async def test_a_breaker_defers_without_spending_attempts_and_probes(
    notifier: Notifier, empty: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "SHORTEST", 0.6)
    await subscribe(empty, receiver.url)
    receiver.answer = answering(500)
    for _ in range(breaker.FAILURES):
        await notifier.tell(await happen(empty))
    assert len(receiver.heard) == breaker.FAILURES
    deferred = [await happen(empty) for _ in range(20)]
    await notifier.tell(*deferred)
    assert len(receiver.heard) == breaker.FAILURES, "left alone"
    assert await statuses(empty) == ["retrying"] * (breaker.FAILURES + 20)
    assert sum(d["attempts"] == 0 for d in await deliveries(empty)) == 20
    await eventually(lambda: _heard(receiver, breaker.FAILURES + 1), 5)
    probes = len(receiver.heard) - breaker.FAILURES
    assert probes == 1, "one attempt alone finds out"
    receiver.answer = answering(200)
    await until(empty, *["delivered"] * (breaker.FAILURES + 20))
    await assert_deliveries(empty)


async def test_a_person_who_asks_need_not_wait_for_a_breaker(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    receiver.answer = answering(500)
    for _ in range(breaker.FAILURES):
        await notifier.tell(await happen(empty))
    receiver.answer = answering(200)
    await empty.execute("UPDATE deliveries SET next_attempt_at = now()")
    rows = await deliveries(empty)
    items = [Item(ACCOUNT, row["id"]) for row in rows]
    await notifier.due.handle(message(DELIVERIES, *items))
    await notifier.dispatcher.idle()
    assert len(receiver.heard) == breaker.FAILURES, "a retry waits for it"
    asked = Item(ACCOUNT, items[-1].id, by_hand=True)
    await notifier.due.handle(message(DELIVERIES, asked))
    await until(empty, *["delivered"] * breaker.FAILURES)
    assert receiver.heard[breaker.FAILURES].headers["webhook-id"] == rows[-1]["event_id"], (
        "the one that was asked for is the first"
    )


async def _heard(receiver: Receiver, number: int) -> bool:
    return len(receiver.heard) >= number


async def test_410_disables_at_once_holds_what_waits_and_tells_the_others(
    notifier: Notifier, empty: Database, receiver: Receiver, other: Receiver
) -> None:
    gone = await subscribe(empty, receiver.url)
    await subscribe(empty, other.url)
    receiver.answer = answering(500)
    await notifier.tell(await happen(empty))  # waits for its retry
    receiver.answer = answering(410)
    await notifier.tell(await happen(empty))
    row = await endpoint_row(empty, gone)
    assert row["disabled_at"] is not None
    assert "410" in row["disabled_reason"]
    [(event, at)] = [
        (r["id"], r["created_at"])
        for r in await empty.fetch("SELECT * FROM events WHERE type = $1", ENDPOINT_DISABLED)
    ]
    assert await statuses_of(empty, gone) == ["held", "held"]
    while await notifier.sweep():  # the event's message is with the relay: here it was lost
        pass
    told = [heard.event for heard in other.heard if heard.event["type"] == ENDPOINT_DISABLED]
    assert [(t["id"], t["data"]["object"]["id"]) for t in told] == [(event, gone)]
    assert told[0]["data"]["object"]["status"] == "disabled"
    heard = len(receiver.heard)
    await notifier.tell(await happen(empty))
    assert len(receiver.heard) == heard, "what happens later is held, too"
    assert await statuses_of(empty, gone) == ["held"] * 3
    assert at is not None
    await assert_deliveries(empty)


async def test_an_answer_to_an_attempt_from_before_a_change_does_not_disable_what_is_now(
    notifier: Notifier, empty: Database, receiver: Receiver, other: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)

    async def moves_away(_: Heard) -> web.Response:
        await change(empty, endpoint, url=other.url)
        return web.Response(status=410)

    receiver.answer = moves_away
    await notifier.tell(await happen(empty))
    assert (await endpoint_row(empty, endpoint))["disabled_at"] is None
    await notifier.sweep()
    await until(empty, "delivered")
    assert len(other.heard) == 1

    days = datetime.now(UTC) - timedelta(days=6)
    await empty.execute("UPDATE webhook_endpoints SET failing_since = $1", days)

    async def recovers_elsewhere(_: Heard) -> web.Response:
        await empty.execute("UPDATE webhook_endpoints SET failing_since = NULL")
        return web.Response(status=500)

    other.answer = recovers_elsewhere
    await notifier.tell(await happen(empty))
    assert (await endpoint_row(empty, endpoint))["disabled_at"] is None


async def test_a_first_attempt_that_had_to_wait_is_made_although_its_endpoint_was_deleted(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)
    opened = await open_deliveries(empty, [await happen(empty)])
    [[target]] = [targets or [] for targets in opened.values()]
    await defer(empty, {target.item: None})
    await unsubscribe(empty, endpoint)
    await notifier.sweep()
    await until(empty, "delivered")


async def test_what_is_sent_has_ended_while_its_lease_lasts(
    notifier: Notifier, empty: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the answer to the claim was late: else another would send beside it."""
    claim = claim_attempts

    async def late(*args: Any, **kwargs: Any) -> Any:
        claimed = await claim(*args, **kwargs)
        await asyncio.sleep(0.5)
        return claimed

    monkeypatch.setattr(attempts, "claim_attempts", late)
    monkeypatch.setattr(attempts, "LEASE_MARGIN", -0.2)  # of a deadline of one second
    await subscribe(empty, receiver.url)
    await notifier.tell(await happen(empty))
    assert receiver.heard == [], "less than a second was left"
    assert await attempts_of(empty) == []


async def statuses_of(database: Database, endpoint: str) -> list[str]:
    rows = await deliveries(database)
    return [row["status"] for row in rows if row["endpoint_id"] == endpoint]


async def test_what_was_held_is_caught_up_in_order_of_time(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)
    await change(empty, endpoint, disabled=True)
    items = [await happen(empty) for _ in range(30)]
    await notifier.tell(*items)
    assert receiver.heard == []
    assert set(await statuses(empty)) == {"held"}
    await notifier.sweep()
    assert set(await statuses(empty)) == {"held"}, "as long as it is disabled"
    await change(empty, endpoint, disabled=False)
    newest = await happen(empty)
    while await notifier.sweep():
        pass
    assert await statuses(empty) == ["delivered"] * 31
    ids = [heard.headers["webhook-id"] for heard in receiver.heard]
    assert sorted(ids) == sorted(item.id for item in [*items, newest])
    places = {id_: place for place, id_ in enumerate(i for i in ids if i != newest.id)}
    late = [places[item.id] - place for place, item in enumerate(items)]
    assert max(map(abs, late)) < 8, "but for what is under way together"
    await assert_deliveries(empty)


async def test_failing_for_days_disables_and_one_success_forgives(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)
    receiver.answer = answering(500, 200, 500)
    await notifier.tell(await happen(empty))
    assert (await endpoint_row(empty, endpoint))["failing_since"] is not None
    await notifier.tell(await happen(empty))
    assert (await endpoint_row(empty, endpoint))["failing_since"] is None
    await notifier.tell(await happen(empty))
    row = await endpoint_row(empty, endpoint)
    assert row["failing_since"] is not None
    assert row["disabled_at"] is None
    days = datetime.now(UTC) - timedelta(days=5, seconds=1)
    await empty.execute("UPDATE webhook_endpoints SET failing_since = $1", days)
    await notifier.tell(await happen(empty))
    row = await endpoint_row(empty, endpoint)
    assert "has failed since" in row["disabled_reason"]
    assert (await statuses(empty)).count("held") == 3, "the retries that waited, too"
    await change(empty, endpoint, disabled=False)
    row = await endpoint_row(empty, endpoint)
    assert (row["failing_since"], row["disabled_reason"]) == (None, None), "a clean slate"
    await assert_deliveries(empty)


async def test_what_is_held_for_an_endpoint_that_is_deleted_ends_in_the_dead_queue(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)
    await change(empty, endpoint, disabled=True)
    await notifier.tell(await happen(empty))
    await unsubscribe(empty, endpoint)
    while await notifier.sweep():
        pass
    assert await statuses(empty) == ["dead"]
    assert receiver.heard == []
    [attempt] = await attempts_of(empty)
    assert attempt["error"] == "the endpoint was deleted"


async def test_a_notifier_that_stops_gives_back_what_waits(
    empty: Database, urls: Urls, receiver: Receiver
) -> None:
    silence = receiver.answer = Silence()
    await subscribe(empty, receiver.url)
    async with notifying(empty, urls.amqp, timeout=60, places=4) as stopping:
        running = asyncio.create_task(stopping.dispatcher.run())
        items = [await happen(empty) for _ in range(30)]
        await stopping.events.handle(message(EVENTS, *items[:20]))
        await receiver.wait_until(lambda: len(receiver.heard) == 1)
        stopping.dispatcher.stop()
        await stopping.events.handle(message(EVENTS, *items[20:]))
        silence.broken.set()
        await running
        assert len(receiver.heard) == 1, "nothing is begun any more"
        back = [decode(m.body, DELIVERIES) for m in await take_all(urls.amqp, NOTIFIER_DELIVERIES)]
    given = [item for envelope in back for item in envelope]
    assert len(given) == 29
    async with notifying(empty, urls.amqp) as following:
        due = Consumer(urls.amqp, NOTIFIER_DELIVERIES, following.due.handle, name="t")
        async with consuming(due):
            await following.due.handle(message(DELIVERIES, *given))
            await until(empty, *["delivered"] * 30)
    await assert_deliveries(empty)


async def test_new_events_are_not_kept_waiting_by_old_failures(
    empty: Database, urls: Urls, receiver: Receiver
) -> None:
    async def slow(_: Heard) -> web.Response:
        await asyncio.sleep(0.02)
        return web.Response()

    receiver.answer = slow
    endpoint = await subscribe(empty, receiver.url)
    await change(empty, endpoint, disabled=True)
    async with notifying(empty, urls.amqp, places=4) as notifier:
        old = [await happen(empty) for _ in range(100)]
        await notifier.tell(*old)
        await change(empty, endpoint, disabled=False)
        await notifier.sweeper.sweep_once()
        new = [await happen(empty) for _ in range(20)]
        await notifier.events.handle(message(EVENTS, *new))
        await notifier.dispatcher.idle()
    order = [heard.headers["webhook-id"] for heard in receiver.heard]
    assert sorted(order) == sorted(item.id for item in old + new)
    last = max(order.index(item.id) for item in new)
    assert last < 60, f"the new were done after {last} of 120"


async def test_custom_headers_are_sent_and_cannot_replace_ours(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(
        empty,
        receiver.url,
        custom_headers={"Authorization": "Bearer t0ken", "User-Agent": "me"},
    )
    await notifier.tell(await happen(empty))
    [heard] = receiver.heard
    assert heard.headers["Authorization"] == "Bearer t0ken"
    assert heard.headers["User-Agent"].startswith("Florin/")


async def test_events_of_an_account_are_numbered_in_their_payloads(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    started = time.time()
    await notifier.tell(*[await happen(empty) for _ in range(10)])
    told = [heard.event for heard in receiver.heard]
    assert sorted(event["sequence"] for event in told) == list(range(1, 11))
    assert all(event["created"] >= int(started) for event in told)
