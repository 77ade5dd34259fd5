"""Replays: what happened is sent once more, all of it, no faster than it is taken, also after a
crash."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from aiohttp import web

from services.api.store.replays import cancel_replay, count_events, find_replay, insert_replay
from services.notifier import replay as replaying
from services.notifier.replay import Replayer
from services.notifier.store.replays import advance_replay
from shared.db import Database
from shared.event_types import EVENT_TYPES
from shared.ids import new_id
from shared.messages import Item
from tests.invariants import assert_deliveries
from tests.receiver import Heard, Receiver
from tests.system import Urls
from tests.telling import (
    ACCOUNT,
    Notifier,
    answering,
    attempts_of,
    change,
    deliveries,
    happen,
    notifying,
    statuses,
    subscribe,
    unsubscribe,
)

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def notifier(empty: Database, urls: Urls) -> AsyncIterator[Notifier]:
    async with notifying(empty, urls.amqp) as notifier:
        yield notifier


async def ask(
    database: Database,
    endpoint: str,
    *,
    since: datetime = LONG_AGO,
    until: datetime | None = None,
    types: Sequence[str] = EVENT_TYPES,
    only_dead: bool = False,
) -> str:
    """Ask for a replay, as the API does."""
    until = until or datetime.now(UTC)
    events = await count_events(
        database, ACCOUNT, endpoint, since=since, until=until, types=types, only_dead=only_dead
    )
    made = await insert_replay(
        database,
        account_id=ACCOUNT,
        id_=new_id("rpl"),
        endpoint_id=endpoint,
        since=since,
        until=until,
        types=types,
        only_dead=only_dead,
        events=events,
    )
    return made.id


async def counts(database: Database, replay: str) -> tuple[int, int, int, int, bool]:
    found = await find_replay(database, ACCOUNT, replay)
    assert found is not None
    return (
        found.events,
        found.sent_again,
        found.sent_first,
        found.passed_over,
        found.finished_at is not None,
    )


class Died(Exception):  # noqa: N818
    """The process is gone, and its transaction with it."""


async def die_half_way(database: Database, replay: Item) -> None:
    async with database.transaction() as dying:
        assert await advance_replay(dying, replay, limit=7)
        raise Died


async def run(database: Database, notifier: Notifier) -> None:
    """Take replays to their end."""
    replayer = Replayer(database, notifier.dispatcher)
    while await replayer.run_once():
        await notifier.dispatcher.idle()


async def test_what_was_delivered_dead_or_never_sent_is_sent_under_the_next_number(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    never = [await happen(empty) for _ in range(3)]
    endpoint = await subscribe(empty, receiver.url)
    delivered = [await happen(empty) for _ in range(3)]
    await notifier.tell(*delivered)
    await empty.execute(
        "UPDATE deliveries SET status = 'dead', dead_at = now() WHERE event_id = $1",
        delivered[0].id,
    )
    heard = len(receiver.heard)
    replay = await ask(empty, endpoint)
    await run(empty, notifier)
    assert [h.headers["webhook-id"] for h in receiver.heard[heard:]] == [
        item.id for item in never + delivered
    ], "in order of time"
    assert await counts(empty, replay) == (6, 3, 3, 0, True)
    assert set(await statuses(empty)) == {"delivered"}
    assert sorted(a["number"] for a in await attempts_of(empty)) == [1] * 6 + [2] * 3
    await assert_deliveries(empty)


async def next_millisecond() -> None:
    """Wait until the clock shows another: ids tell milliseconds apart."""
    now = int(time.time() * 1000)
    while int(time.time() * 1000) == now:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)


async def test_a_range_types_and_dead_alone_choose(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)
    first = await happen(empty)
    await next_millisecond()
    since = datetime.now(UTC)
    failed, second = await happen(empty, "payment.failed"), await happen(empty)
    await next_millisecond()
    until = datetime.now(UTC)
    await next_millisecond()
    third = await happen(empty)
    await notifier.tell(first, failed, second, third)
    await empty.execute(
        "UPDATE deliveries SET status = 'dead', dead_at = now() WHERE event_id = $1", third.id
    )

    async def replayed(**how: object) -> list[str]:
        heard = len(receiver.heard)
        replay = await ask(empty, endpoint, **how)  # type: ignore[arg-type]
        await run(empty, notifier)
        ids = [h.headers["webhook-id"] for h in receiver.heard[heard:]]
        assert (await counts(empty, replay))[0] == len(ids), "as many as were counted"
        return ids

    assert await replayed(since=since, until=until) == [failed.id, second.id]
    assert await replayed(types=["payment.failed"]) == [failed.id]
    assert await replayed(only_dead=True) == [third.id]
    assert await replayed(only_dead=True) == []
    await assert_deliveries(empty)


async def test_a_replay_goes_on_where_it_was_however_often_it_is_cut_off(
    notifier: Notifier, empty: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "STEP", 7)
    items = [await happen(empty) for _ in range(50)]
    endpoint = await subscribe(empty, receiver.url)
    replay = await ask(empty, endpoint)
    reference = Item(ACCOUNT, replay)
    while not (await counts(empty, replay))[-1]:
        # Two notifiers at once, and the step of one is rolled back half-way: it died.
        with contextlib.suppress(Died):
            await die_half_way(empty, reference)
        await asyncio.gather(*(Replayer(empty, notifier.dispatcher).run_once() for _ in range(2)))
        await notifier.dispatcher.idle()
    assert sorted(h.headers["webhook-id"] for h in receiver.heard) == [item.id for item in items]
    assert await counts(empty, replay) == (50, 0, 50, 0, True)
    await assert_deliveries(empty)


async def test_a_replay_goes_no_faster_than_its_endpoint(
    notifier: Notifier, empty: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "STEP", 10)
    monkeypatch.setattr(replaying, "MOST_DUE", 10)
    for _ in range(100):
        await happen(empty)
    endpoint = await subscribe(empty, receiver.url)
    released = asyncio.Event()

    async def wait(_: Heard) -> web.Response:
        await released.wait()
        return web.Response()

    receiver.answer = wait
    await ask(empty, endpoint)
    replayer = Replayer(empty, notifier.dispatcher)
    for _ in range(20):
        await replayer.run_once()
    assert len(await deliveries(empty)) <= 20, "the rest is not even made due"
    released.set()
    await notifier.dispatcher.idle()
    await run(empty, notifier)
    assert await statuses(empty) == ["delivered"] * 100
    await assert_deliveries(empty)


async def test_a_replay_waits_for_an_endpoint_that_is_disabled_and_ends_with_one_that_is_deleted(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    await happen(empty)
    endpoint = await subscribe(empty, receiver.url)
    replay = await ask(empty, endpoint)
    await change(empty, endpoint, disabled=True)
    await run(empty, notifier)
    assert await counts(empty, replay) == (1, 0, 0, 0, False)
    await change(empty, endpoint, disabled=False)
    await run(empty, notifier)
    assert await counts(empty, replay) == (1, 0, 1, 0, True)
    for end in (unsubscribe, None):
        replay = await ask(empty, endpoint)
        if end:
            await end(empty, endpoint)
        else:
            await cancel_replay(empty, ACCOUNT, replay)
        await run(empty, notifier)
        assert (await counts(empty, replay))[-1]
    assert len(receiver.heard) == 1


async def test_what_is_open_is_left_to_its_schedule(
    notifier: Notifier, empty: Database, receiver: Receiver
) -> None:
    endpoint = await subscribe(empty, receiver.url)
    receiver.answer = answering(500)
    await notifier.tell(await happen(empty))
    await empty.execute("UPDATE deliveries SET next_attempt_at = now() + interval '1 hour'")
    replay = await ask(empty, endpoint)
    await run(empty, notifier)
    assert await counts(empty, replay) == (1, 0, 0, 1, True)
    assert len(receiver.heard) == 1
