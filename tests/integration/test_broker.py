"""Messages against a real RabbitMQ: confirmed when published, acked when finished."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import aio_pika
import pytest

from shared import topology
from shared.broker import (
    BrokerUnavailable,
    Consumer,
    Delivery,
    Outgoing,
    Publisher,
    connect,
    queue_depth,
)
from shared.dead_letters import DeadLetters
from shared.errors import Misconfigured
from tests.system import RETRY_DELAYS, Urls, eventually

PAYMENTS = topology.PROCESSOR_PAYMENTS


def command(body: bytes) -> Outgoing:
    return Outgoing(topology.COMMANDS, "payments", body)


@contextlib.asynccontextmanager
async def consuming(consumer: Consumer):  # type: ignore[no-untyped-def]
    """The consumer at work during the block."""
    task = asyncio.create_task(consumer.run())
    await consumer.wait_connected(5)
    try:
        yield
    finally:
        consumer.stop()
        await task


async def delete_queue(url: str, queue: str) -> None:
    """What an operator may do at any time."""
    connection = await connect(url, name="operator")
    try:
        channel = await connection.channel()
        await channel.queue_delete(queue)
    finally:
        await connection.close()


async def purge(url: str, queue: str) -> int:
    """Empty a queue at once; returns how many messages it had."""
    connection = await connect(url, name="operator")
    try:
        channel = await connection.channel()
        found = await channel.get_queue(queue, ensure=False)
        return (await found.purge()).message_count or 0
    finally:
        await connection.close()


async def bind_queue(url: str, queue: str, exchange: str, key: str) -> None:
    """A queue of somebody else's, until the virtual host is gone."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        made = await channel.declare_queue(queue, durable=True)
        await made.bind(exchange, key)


async def is_noticed(consumer: Consumer) -> bool:
    """Whether the consumer knows that it no longer consumes."""
    return not consumer.connected


async def equal(found: Callable[[], object], wanted: object) -> bool:
    """Whether it is so by now."""
    return found() == wanted


async def take_all(url: str, queue: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Empty a queue."""
    connection = await connect(url, name="test")
    try:
        channel = await connection.channel()
        found = await channel.get_queue(queue, ensure=False)
        messages = []
        while (message := await found.get(fail=False)) is not None:
            await message.ack()
            messages.append(message)
        return messages
    finally:
        await connection.close()


async def test_what_is_published_arrives(urls: Urls, publisher: Publisher) -> None:
    bodies = [str(n).encode() for n in range(250)]
    await publisher.publish([command(body) for body in bodies])
    heard: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        heard.append(delivery.body)

    async def all_heard() -> bool:
        return len(heard) == len(bodies)

    async with consuming(Consumer(urls.amqp, PAYMENTS, handle, name="t", channels=3, prefetch=7)):
        await eventually(all_heard)
    assert sorted(heard) == sorted(bodies)
    assert await queue_depth(urls.amqp, PAYMENTS) == 0


async def test_what_is_not_finished_comes_again_when_the_connection_is_lost(
    urls: Urls, publisher: Publisher
) -> None:
    heard: list[tuple[bytes, bool]] = []
    may_finish = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        heard.append((delivery.body, delivery.redelivered))
        if delivery.body == b"1":
            await may_finish.wait()

    await publisher.publish([command(str(n).encode()) for n in range(4)])

    async def heard_all() -> bool:
        return {body for body, _ in heard} == {b"0", b"1", b"2", b"3"}

    consumer = Consumer(urls.amqp, PAYMENTS, handle, name="lost", channels=1, prefetch=10)
    task = asyncio.create_task(consumer.run())
    await eventually(heard_all)
    task.cancel()  # as a crash: the connection goes, nothing more is acked
    await asyncio.gather(task, return_exceptions=True)

    may_finish.set()
    heard.clear()

    async def heard_again() -> bool:
        return len(heard) >= 3

    async with consuming(Consumer(urls.amqp, PAYMENTS, handle, name="again")):
        await eventually(heard_again)
    # 0 was a finished prefix and is gone; 2 and 3 were finished too, but behind 1.
    assert sorted(heard) == [(b"1", True), (b"2", True), (b"3", True)]
    assert await queue_depth(urls.amqp, PAYMENTS) == 0


async def test_a_consumer_that_stops_finishes_what_it_holds(
    urls: Urls, publisher: Publisher
) -> None:
    may_finish = asyncio.Event()
    held: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        held.append(delivery.body)
        await may_finish.wait()

    await publisher.publish([command(b"held")])
    consumer = Consumer(urls.amqp, PAYMENTS, handle, name="stopping")
    task = asyncio.create_task(consumer.run())

    async def is_held() -> bool:
        return held == [b"held"]

    await eventually(is_held)
    consumer.stop()
    done, _ = await asyncio.wait({task}, timeout=0.3)
    assert not done, "it waits for what it holds"
    may_finish.set()
    await task
    assert await queue_depth(urls.amqp, PAYMENTS) == 0


async def test_a_handler_that_always_fails_ends_in_the_dead_queue(
    urls: Urls, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.broker.consumer.HANDLER_FAILURE_PAUSE", 0.0)
    times = 0

    async def handle(delivery: Delivery) -> None:
        nonlocal times
        times += 1
        raise ZeroDivisionError

    await publisher.publish([command(b"poison")])

    async def is_dead() -> bool:
        return await queue_depth(urls.amqp, topology.PROCESSOR_DEAD) == 1

    async with consuming(Consumer(urls.amqp, PAYMENTS, handle, name="failing")):
        await eventually(is_dead)
    assert times == topology.DELIVERY_LIMIT + 1
    [letter] = await take_all(urls.amqp, topology.PROCESSOR_DEAD)
    assert letter.body == b"poison"


async def test_a_message_that_no_queue_takes_is_kept(urls: Urls, publisher: Publisher) -> None:
    await publisher.publish([Outgoing(topology.COMMANDS, "no-such-key", b"lost?")])
    [message] = await take_all(urls.amqp, topology.UNROUTABLE)
    assert message.body == b"lost?"


async def test_a_dead_letter_has_its_reason(urls: Urls, publisher: Publisher) -> None:
    await DeadLetters(publisher, topology.NOTIFIER_DEAD).put(b"x", "nobody wants it")
    [letter] = await take_all(urls.amqp, topology.NOTIFIER_DEAD)
    assert letter.headers[topology.REASON_HEADER] == "nobody wants it"


async def test_an_unknown_exchange_is_an_error_and_the_publisher_recovers(
    urls: Urls, publisher: Publisher
) -> None:
    with pytest.raises(BrokerUnavailable):
        await publisher.publish([Outgoing("no-such-exchange", "x", b"x")])
    await publisher.publish([Outgoing(topology.DEAD, topology.NOTIFIER_DEAD, b"fine")])
    assert len(await take_all(urls.amqp, topology.NOTIFIER_DEAD)) == 1


async def test_no_broker_is_said_without_the_password() -> None:
    publisher = Publisher("amqp://me:secret@127.0.0.1:1/", name="test")
    with pytest.raises(BrokerUnavailable) as caught:
        await publisher.publish([command(b"x")])
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_applying_the_topology_again_changes_nothing(urls: Urls) -> None:
    await topology.apply(urls.amqp, topology.describe(RETRY_DELAYS))


async def test_an_argument_that_drifted_is_named_with_the_remedy(urls: Urls) -> None:
    described = topology.describe(RETRY_DELAYS)
    drifted = [
        dataclasses.replace(queue, ttl_ms=1234) if queue.name == PAYMENTS else queue
        for queue in described.queues
    ]
    with pytest.raises(Misconfigured, match=r"queue processor\.payments exists with other"):
        await topology.apply(urls.amqp, dataclasses.replace(described, queues=drifted))


async def test_a_retry_waits_its_delay_and_comes_back_as_due(
    urls: Urls, publisher: Publisher
) -> None:
    await publisher.publish([Outgoing(topology.RETRIES, topology.rung(RETRY_DELAYS[0]), b"later")])
    assert await queue_depth(urls.amqp, topology.NOTIFIER_DELIVERIES) == 0

    async def is_due() -> bool:
        return await queue_depth(urls.amqp, topology.NOTIFIER_DELIVERIES) == 1

    await eventually(is_due, 5)


async def test_a_consumer_whose_queue_is_deleted_comes_back_with_the_queue(
    urls: Urls, publisher: Publisher
) -> None:
    heard: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        heard.append(delivery.body)

    async def heard_it() -> bool:
        return heard == [b"after"]

    async with consuming(consumer := Consumer(urls.amqp, PAYMENTS, handle, name="deleted")):
        await delete_queue(urls.amqp, PAYMENTS)
        await eventually(lambda: is_noticed(consumer))
        await topology.apply(urls.amqp, topology.describe(RETRY_DELAYS))
        await publisher.publish([command(b"after")])
        await eventually(heard_it)


async def test_a_slow_handler_does_not_delay_the_next_connection(
    urls: Urls, publisher: Publisher
) -> None:
    heard: list[bytes] = []
    may_finish = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        heard.append(delivery.body)
        if delivery.body == b"slow":
            await may_finish.wait()

    async def heard_all() -> bool:
        return heard == [b"slow", b"after"]

    async def holds_one() -> bool:
        return heard == [b"slow"]

    async with consuming(consumer := Consumer(urls.amqp, PAYMENTS, handle, name="slow")):
        try:
            await publisher.publish([command(b"slow")])
            await eventually(holds_one)
            await delete_queue(urls.amqp, PAYMENTS)
            await eventually(lambda: is_noticed(consumer))
            await topology.apply(urls.amqp, topology.describe(RETRY_DELAYS))
            await publisher.publish([command(b"after")])
            await eventually(heard_all, 10)
        finally:
            may_finish.set()


async def test_connections_that_are_lost_again_and_again_pile_nothing_up(
    urls: Urls, publisher: Publisher
) -> None:
    may_finish = asyncio.Event()
    held = 0

    async def handle(_: Delivery) -> None:
        nonlocal held
        held += 1
        await may_finish.wait()

    async with consuming(consumer := Consumer(urls.amqp, PAYMENTS, handle, name="p", prefetch=5)):
        try:
            for round_ in range(1, 4):
                await publisher.publish([command(b"x")] * 5)
                if round_ == 1:
                    await eventually(lambda: equal(lambda: held, 5))
                await delete_queue(urls.amqp, PAYMENTS)
                await eventually(lambda: is_noticed(consumer))
                await topology.apply(urls.amqp, topology.describe(RETRY_DELAYS))
            assert held == 5, "it holds what one connection may bring, and asks for no more"
            consumer.stop()
        finally:
            may_finish.set()
    assert held == 5, "and asks for no more when it is told to stop, either"


async def test_what_was_not_confirmed_is_never_taken_for_published(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between us and RabbitMQ, a line that goes dead after the connection is made.
    target = aio_pika.connection.make_url(urls.amqp)
    alive, stuck = asyncio.Event(), asyncio.Event()
    alive.set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if not alive.is_set():
                    stuck.set()
                await alive.wait()
                writer.write(chunk)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(target.host, target.port)
        await asyncio.gather(carry(reader, onward_writer), carry(onward_reader, writer))

    line = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = line.sockets[0].getsockname()[1]
    publisher = Publisher(str(target.with_host("127.0.0.1").with_port(port)), name="dead line")
    letter = Outgoing(topology.DEAD, topology.NOTIFIER_DEAD, b"x")
    await publisher.publish([letter])
    alive.clear()
    monkeypatch.setattr("shared.broker.publisher.CONFIRM_TIMEOUT", 0.3)
    first = asyncio.create_task(publisher.publish([letter]))
    await stuck.wait()
    monkeypatch.setattr("shared.broker.publisher.CONFIRM_TIMEOUT", 30.0)
    # The first gives up and closes the connection under the second.
    results = await asyncio.gather(first, publisher.publish([letter] * 3), return_exceptions=True)
    assert [type(result) for result in results] == [BrokerUnavailable, BrokerUnavailable]
    alive.set()
    await publisher.close()
    line.close()
    await take_all(urls.amqp, topology.NOTIFIER_DEAD)


async def test_a_connection_that_nobody_waits_for_any_more_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its finalizer would, in whatever thread that happens to run."""
    made: list[aio_pika.Connection] = []
    make = aio_pika.Connection

    def remembered(*args: Any, **kwargs: Any) -> aio_pika.Connection:
        made.append(make(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(aio_pika, "Connection", remembered)
    asked, over = asyncio.Event(), asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await over.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connecting = asyncio.create_task(connect(f"amqp://127.0.0.1:{port}/", name="t"))
        await asked.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        over.set()
    assert [connection.is_closed for connection in made] == [True]
