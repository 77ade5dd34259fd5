"""A first attempt is claimed when its delivery is made, and given up without a trace when it is not
begun: no number is spent, and nobody sends beside another."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.notifier import attempts, dispatcher
from services.notifier.store.attempts import claim_attempts, record_attempts
from services.notifier.store.backlog import defer, give_up_claims
from services.notifier.store.opening import Target, open_deliveries
from shared.db import Database
from shared.messages import DELIVERIES, EVENTS, Item
from tests.integration.test_isolation import Silence
from tests.invariants import assert_deliveries
from tests.receiver import Receiver, open_receiver
from tests.system import Urls
from tests.telling import (
    Notifier,
    answering,
    attempts_of,
    change,
    deliveries,
    happen,
    message,
    notifying,
    statuses,
    subscribe,
    until,
)


@pytest.fixture
async def notifier(empty: Database, urls: Urls) -> AsyncIterator[Notifier]:
    async with notifying(empty, urls.amqp) as notifier:
        yield notifier


async def opened(database: Database, url: str) -> Target:
    """A delivery whose first attempt is claimed, and in nobody's hands."""
    await subscribe(database, url)
    item = await happen(database)
    [target] = (await open_deliveries(database, [item], lease=60))[item.id] or []
    return target


def counting_claims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many attempts each statement was asked to claim, from now on."""
    asked: list[int] = []

    async def claim(database: Database, items: Any, **kwargs: Any) -> Any:
        asked.append(len(items))
        return await claim_attempts(database, items, **kwargs)

    monkeypatch.setattr(attempts, "claim_attempts", claim)
    return asked


async def test_a_first_attempt_needs_no_statement_to_claim_it(
    notifier: Notifier, empty: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counting_claims(monkeypatch)
    await subscribe(empty, receiver.url)
    await notifier.tell(*[await happen(empty) for _ in range(20)])
    assert len(receiver.heard) == 20
    assert asked == []
    assert {attempt["number"] for attempt in await attempts_of(empty)} == {1}
    await assert_deliveries(empty)


async def test_where_many_wait_the_rest_is_claimed_at_its_turn(
    notifier: Notifier, empty: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MOST_CLAIMED", 0)
    asked = counting_claims(monkeypatch)
    await subscribe(empty, receiver.url)
    await notifier.tell(*[await happen(empty) for _ in range(20)])
    assert len(receiver.heard) == 20
    assert sum(asked) == 20


async def test_a_claim_that_has_waited_is_renewed_under_its_number(
    notifier: Notifier, empty: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the merchant has changed meanwhile is heeded."""
    monkeypatch.setattr(attempts, "FRESH", -1.0)
    async with open_receiver() as moved:
        endpoint = await subscribe(empty, receiver.url)
        item = await happen(empty)
        handle = notifier.dispatcher.offer

        async def later(targets: Any, asked_at: float) -> None:
            await change(empty, endpoint, url=moved.url)
            await handle(targets, asked_at)

        monkeypatch.setattr(notifier.dispatcher, "offer", later)
        await notifier.tell(item)
        assert (len(receiver.heard), len(moved.heard)) == (0, 1)
    [attempt] = await attempts_of(empty)
    assert (attempt["number"], attempt["status_code"]) == (1, 200)


async def test_a_claim_of_a_disabled_endpoint_is_held_and_spends_no_number(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    target = await opened(empty, receiver.url)
    assert target.attempt is not None
    await change(empty, target.endpoint.id, disabled=True)
    assert await claim_attempts(empty, {target.item: target.attempt.lease_until}, lease=60) == {}
    [delivery] = await deliveries(empty)
    assert (delivery["status"], delivery["attempts"], delivery["lease_until"]) == ("held", 0, None)
    assert await attempts_of(empty) == []


@pytest.mark.parametrize("how", ["defer", "give up", "claim"])
async def test_what_another_has_taken_over_is_left_alone(
    how: str, empty: Database, receiver: Receiver
) -> None:
    target = await opened(empty, receiver.url)
    assert target.attempt is not None
    mine = {target.item: target.attempt.lease_until}
    await empty.execute("UPDATE deliveries SET lease_until = now()")  # it ran out
    theirs = (await claim_attempts(empty, {target.item: None}, lease=60))[target.item.id]
    before = await deliveries(empty)
    match how:
        case "defer":
            await defer(empty, mine)
        case "give up":
            await give_up_claims(empty, mine)
        case _:
            assert await claim_attempts(empty, mine, lease=60) == {}
    assert await deliveries(empty) == before
    assert theirs.number == 2, "the first was lost"


async def test_what_stops_before_it_sends_leaves_no_trace(
    empty: Database, urls: Urls, receiver: Receiver
) -> None:
    silence = receiver.answer = Silence()
    await subscribe(empty, receiver.url)
    async with notifying(empty, urls.amqp, timeout=60, places=4) as stopping:
        running = asyncio.create_task(stopping.dispatcher.run())
        await stopping.events.handle(message(EVENTS, *[await happen(empty) for _ in range(10)]))
        await receiver.wait_until(lambda: len(receiver.heard) == 1)
        stopping.dispatcher.stop()
        silence.broken.set()
        await running
    waiting = [d for d in await deliveries(empty) if d["status"] == "pending"]
    assert len(waiting) == 9
    assert {(d["attempts"], d["lease_until"]) for d in waiting} == {(0, None)}
    receiver.answer = answering(200)
    async with notifying(empty, urls.amqp) as following:
        rest = [Item(d["account_id"], d["id"]) for d in waiting]
        await following.due.handle(message(DELIVERIES, *rest))
        await following.dispatcher.idle()
    assert {attempt["number"] for attempt in await attempts_of(empty)} == {1}
    assert await statuses(empty) == ["delivered"] * 10


async def test_what_an_endpoint_in_trouble_did_not_get_spends_no_number(
    empty: Database, urls: Urls, receiver: Receiver
) -> None:
    receiver.answer = answering(500)
    await subscribe(empty, receiver.url)
    async with notifying(empty, urls.amqp, places=4) as notifier:
        await notifier.events.handle(message(EVENTS, *[await happen(empty) for _ in range(40)]))
        await until(empty, *["retrying"] * 40)  # its breaker has opened, and the lane is empty
        numbers = [delivery["attempts"] for delivery in await deliveries(empty)]
    assert 0 in numbers
    assert sum(numbers) == len(receiver.heard)
    assert {d["lease_until"] for d in await deliveries(empty) if d["attempts"] == 0} == {None}


async def test_what_waits_for_long_is_claimed_again_at_its_turn_and_spends_no_number(
    empty: Database, urls: Urls, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = receiver.answer = Silence()
    await subscribe(empty, receiver.url)
    async with notifying(empty, urls.amqp, timeout=60, places=4) as notifier:
        await notifier.events.handle(message(EVENTS, *[await happen(empty) for _ in range(10)]))
        await receiver.wait_until(lambda: len(receiver.heard) == 1)
        monkeypatch.setattr(attempts, "LEASE_MARGIN", -120.0)  # long ago, for what is open
        await notifier.dispatcher.give_up_old_claims()
        monkeypatch.undo()
        waiting = [d for d in await deliveries(empty) if d["lease_until"] is None]
        assert len(waiting) == 9
        assert {d["attempts"] for d in waiting} == {0}
        silence.broken.set()
        receiver.answer = answering(200)
        await notifier.dispatcher.idle()
    assert await statuses(empty) == ["delivered"] * 10
    assert {attempt["number"] for attempt in await attempts_of(empty)} == {1}
    await assert_deliveries(empty)


@pytest.mark.parametrize("how", ["defer", "give up"])
async def test_a_claim_that_the_sweeper_took_for_lost_is_still_given_up(
    how: str, empty: Database, receiver: Receiver
) -> None:
    target = await opened(empty, receiver.url)
    assert target.attempt is not None
    await empty.execute("UPDATE deliveries SET status = 'retrying', next_attempt_at = now()")
    mine = {target.item: target.attempt.lease_until}
    await (defer(empty, mine) if how == "defer" else give_up_claims(empty, mine))
    [delivery] = await deliveries(empty)
    assert (delivery["status"], delivery["attempts"]) == ("retrying", 0)
    assert delivery["lease_until"] is None


async def test_what_came_of_attempts_is_written_many_at_once(
    notifier: Notifier, empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it: a webhook that was heard is written down a tenth of a second later,
    together with others."""
    began: list[float] = []

    async def record(database: Database, finished: Any) -> Any:
        began.append(asyncio.get_running_loop().time())
        return await record_attempts(database, finished)

    monkeypatch.setattr(attempts, "record_attempts", record)
    async with open_receiver() as receiver:
        await subscribe(empty, receiver.url)
        started = asyncio.get_running_loop().time()
        for number in range(10):
            item = await happen(empty)
            await notifier.events.handle(message(EVENTS, item))
            await receiver.wait_until(lambda so_far=number: len(receiver.heard) > so_far)  # type: ignore[misc]
        await notifier.dispatcher.idle()

    assert await statuses(empty) == ["delivered"] * 10
    rests = len(began) - 1
    assert rests > 0
    assert began[-1] - started >= rests * attempts.BETWEEN_RECORDS
