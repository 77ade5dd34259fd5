"""Retention forgets what was told long ago, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from services.notifier import retention
from services.notifier.retention import Pruner
from shared.db import Database
from tests.receiver import Receiver
from tests.system import Urls
from tests.telling import (
    answering,
    attempts_of,
    change,
    deliveries,
    happen,
    notifying,
    subscribe,
)

DAY = 86_400.0


def later() -> datetime:
    """When everything that a test made is two days old."""
    return datetime.now(UTC) + timedelta(days=2)


async def see_to_all(database: Database) -> None:
    """As when the sweeper has looked at all there is, a day later."""
    await database.execute(
        """
        INSERT INTO sweep_marks (name, mark) VALUES ('events', now() + interval '1 day')
            ON CONFLICT (name) DO UPDATE SET mark = excluded.mark
        """
    )


async def events(database: Database) -> list[str]:
    return [row["id"] for row in await database.fetch("SELECT id FROM events ORDER BY id")]


async def test_what_was_told_is_forgotten_and_what_is_open_is_kept(
    empty: Database, urls: Urls, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 3)
    endpoint = await subscribe(empty, receiver.url)
    async with notifying(empty, urls.amqp) as notifier:
        told = [await happen(empty) for _ in range(10)]
        await notifier.tell(*told)
        receiver.answer = answering(500)
        retried = await happen(empty)
        await notifier.tell(retried)
        await change(empty, endpoint, disabled=True)
        held = await happen(empty)
        await notifier.tell(held)
        await empty.execute("DELETE FROM webhook_subscriptions")
        untold = await happen(empty)
        everything = await events(empty)

        await Pruner(empty, DAY, lambda: datetime.now(UTC)).run()
        await Pruner(empty, 0.0, later).run()
        assert await events(empty) == everything, "too young, or kept for ever"
        await empty.execute("UPDATE sweep_marks SET mark = '2020-01-01' WHERE name = 'events'")
        await Pruner(empty, DAY, later).run()
        assert await events(empty) == everything, "the sweeper has not seen to them yet"
        await see_to_all(empty)
        await Pruner(empty, DAY, later).run()
        assert await events(empty) == sorted([retried.id, held.id])
        assert untold.id not in await events(empty)
        assert {d["event_id"] for d in await deliveries(empty)} == {retried.id, held.id}
        assert len(await attempts_of(empty)) == 1
        # What is open has its end as ever, and can then be forgotten.
        receiver.answer = answering(200)
        await change(empty, endpoint, disabled=False)
        while await notifier.sweep():
            pass
        await empty.execute(
            "UPDATE deliveries SET next_attempt_at = now() WHERE status = 'retrying'"
        )
        await notifier.sweep()
        await see_to_all(empty)
        await Pruner(empty, DAY, later).run()
        assert await events(empty) == []
        assert await attempts_of(empty) == []


async def test_a_delivery_whose_event_is_gone_ends_dead_and_says_why(
    empty: Database, urls: Urls, receiver: Receiver
) -> None:
    await subscribe(empty, receiver.url)
    async with notifying(empty, urls.amqp) as notifier:
        receiver.answer = answering(500)
        await notifier.tell(await happen(empty))
        await empty.execute("DELETE FROM events")
        await empty.execute("UPDATE deliveries SET next_attempt_at = now()")
        await notifier.sweep()
    [delivery] = await deliveries(empty)
    assert (delivery["status"], delivery["attempts"]) == ("dead", 2)
    assert (await attempts_of(empty))[-1]["error"] == "its event was pruned"
    assert len(receiver.heard) == 1
