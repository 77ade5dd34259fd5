"""Dead letters: looked at without harm, sent on once, dropped when a person says so."""

import json
from collections.abc import AsyncIterator

import pytest

from shared.broker import Outgoing, Publisher, queue_depth
from shared.db import Database
from shared.dead_letters import DeadLetters
from shared.messages import DELIVERIES, EVENTS, PAYMENTS, Item, decode, encode
from shared.outbox import OutboxRelay
from shared.topology import (
    DEAD,
    NOTIFIER_DEAD,
    NOTIFIER_DELIVERIES,
    NOTIFIER_EVENTS,
    PROCESSOR_DEAD,
    PROCESSOR_PAYMENTS,
)
from tests.integration.test_broker import take_all
from tests.receiver import Receiver
from tests.system import Urls, run_command
from tests.telling import (
    ACCOUNT,
    answering,
    deliveries,
    happen,
    message,
    notifying,
    statuses,
    subscribe,
    unsubscribe,
)


@pytest.fixture(autouse=True)
async def empty_queues(urls: Urls) -> AsyncIterator[None]:
    yield
    for queue in (PROCESSOR_DEAD, NOTIFIER_DEAD, PROCESSOR_PAYMENTS, NOTIFIER_EVENTS):
        await take_all(urls.amqp, queue)


async def dead_letters(urls: Urls, command: str, *arguments: str) -> str:
    """`./florin dead-letters …`."""
    databases = ["--database-url", urls.database] if command == "redrive" else []
    status, output = await run_command(
        "dead-letters", command, *arguments, "--amqp-url", urls.amqp, *databases
    )
    assert status == 0, output
    return output


async def put_aside(publisher: Publisher) -> None:
    """A payment and an event that exist no more, and nonsense."""
    processor = DeadLetters(publisher, PROCESSOR_DEAD)
    notifier = DeadLetters(publisher, NOTIFIER_DEAD)
    await processor.put(encode(PAYMENTS, [Item(ACCOUNT, "pay_1")]).encode(), "no payment pay_1")
    await notifier.put(encode(EVENTS, [Item(ACCOUNT, "evt_1")]).encode(), "no event evt_1")
    await notifier.put(b"nonsense", "the body is not JSON")


async def test_they_are_listed_with_their_reasons_and_stay(
    urls: Urls, publisher: Publisher
) -> None:
    assert "no dead letters" in await dead_letters(urls, "list")
    await put_aside(publisher)
    listed = await dead_letters(urls, "list")
    for text in ("pay_1", "no payment pay_1", "evt_1", "nonsense", "not JSON", "3 of 3"):
        assert text in listed
    lines = (await dead_letters(urls, "list", "--json", "--queue", PROCESSOR_DEAD)).splitlines()
    [letter] = [json.loads(line) for line in lines]
    assert letter["items"] == [{"account_id": ACCOUNT, "id": "pay_1"}]
    assert "1 of 3" in await dead_letters(urls, "list", "--reason", "JSON")
    assert await queue_depth(urls.amqp, NOTIFIER_DEAD) == 2


async def test_to_look_often_loses_none(urls: Urls, publisher: Publisher) -> None:
    await publisher.publish([Outgoing(DEAD, PROCESSOR_DEAD, b"one", {"florin-reason": "why"})])
    for _ in range(12):
        [_] = (await dead_letters(urls, "list", "--json")).splitlines()
    [letter] = await take_all(urls.amqp, PROCESSOR_DEAD)
    assert letter.headers["florin-reason"] == "why"
    returns = letter.headers.get("x-delivery-count", 0)
    assert isinstance(returns, int)
    assert returns < 5, "a copy has taken its place: RabbitMQ 4 drops at the twentieth return"


async def test_they_are_sent_on_to_where_they_are_worked_on(
    urls: Urls, publisher: Publisher
) -> None:
    await put_aside(publisher)
    said = await dead_letters(urls, "redrive")
    assert "2 sent on" in said
    assert "1 cannot be sent on" in said
    [payment] = await take_all(urls.amqp, PROCESSOR_PAYMENTS)
    assert decode(payment.body, PAYMENTS) == [Item(ACCOUNT, "pay_1")]
    [event] = await take_all(urls.amqp, NOTIFIER_EVENTS)
    assert decode(event.body, EVENTS) == [Item(ACCOUNT, "evt_1")]
    [kept] = await take_all(urls.amqp, NOTIFIER_DEAD)
    assert kept.body == b"nonsense"


async def test_a_dead_delivery_is_brought_back_and_delivered(
    empty: Database, urls: Urls, receiver: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)
    gone = await subscribe(empty, receiver.url + "?gone")
    receiver.answer = answering(500)
    async with notifying(empty, urls.amqp, delays=(0.01,)) as notifier:
        relay = OutboxRelay(empty, notifier.publisher)
        await notifier.tell(await happen(empty))
        while set(await statuses(empty)) != {"dead"}:
            await notifier.sweep()
        while await relay.sweep_once(older_than=0.0):
            pass
        assert await queue_depth(urls.amqp, NOTIFIER_DEAD) == 2
        await unsubscribe(empty, gone)
        said = await dead_letters(urls, "redrive", "--reason", "attempts failed")
        assert "1 sent on" in said
        assert "1 cannot be sent on" in said
        receiver.answer = answering(200)
        given = [
            item
            for letter in await take_all(urls.amqp, NOTIFIER_DELIVERIES)
            for item in decode(letter.body, DELIVERIES)
        ]
        await notifier.due.handle(message(DELIVERIES, *given))
        await notifier.dispatcher.idle()
    states = {row["endpoint_id"]: row["status"] for row in await deliveries(empty)}
    assert states == {endpoint: "delivered", gone: "dead"}
    assert "settled meanwhile" not in await dead_letters(urls, "redrive")


async def test_they_are_dropped_when_a_person_says_so(urls: Urls, publisher: Publisher) -> None:
    await put_aside(publisher)
    status, said = await run_command("dead-letters", "drop", "--amqp-url", urls.amqp)
    assert status == 1, "nobody said yes"
    assert "Drop all letters of processor.dead and notifier.dead?" in said
    assert "1 dropped" in await dead_letters(urls, "drop", "--yes", "--reason", "JSON")
    assert await queue_depth(urls.amqp, NOTIFIER_DEAD) == 1
    assert "2 dropped" in await dead_letters(urls, "drop", "--yes")
    assert "no dead letters" in await dead_letters(urls, "list")


async def test_a_broker_that_is_away_is_said_in_a_line() -> None:
    status, said = await run_command(
        "dead-letters", "list", "--amqp-url", "amqp://guest:s3cret@127.0.0.1:1/"
    )
    assert status == 1
    assert "no connection to RabbitMQ at" in said
    assert "s3cret" not in said
    assert "Traceback" not in said
