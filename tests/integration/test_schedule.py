"""The schedule of a day's retries, on a clock that a test moves."""

from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from shared.config import Settings
from shared.db import Database, open_database
from tests.invariants import assert_deliveries
from tests.receiver import Receiver
from tests.system import Urls
from tests.telling import Clock, answering, attempts_of, deliveries, happen, notifying, subscribe

DELAYS = Settings().webhook_retry_delays


class MovedClock(Clock):
    """A clock that moves the database's time, too."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    async def move_to(self, moment: datetime) -> None:
        """Make it `moment` now."""
        self.shift += (moment - self.now()).total_seconds()
        await self._database.execute("UPDATE clock.shift SET seconds = $1", self.shift)


@pytest.fixture
async def shifted(empty: Database, urls: Urls) -> AsyncIterator[Database]:
    """The module's database on connections for which `now()` is `clock.now()`."""
    await empty.execute("CREATE SCHEMA clock")
    await empty.execute("CREATE TABLE clock.shift AS SELECT 0::float8 AS seconds")
    await empty.execute(
        """
        CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
        'SELECT pg_catalog.now() + make_interval(secs => seconds) FROM clock.shift'
        """
    )
    url = f"{urls.database}?search_path=clock,pg_catalog,public"
    database = await open_database(url, service="clock", size=4, wait=5)
    yield database
    await database.close()
    await empty.execute("DROP SCHEMA clock CASCADE")


async def test_ten_attempts_in_more_than_three_days_each_when_it_is_due_and_none_before(
    shifted: Database, urls: Urls, receiver: Receiver
) -> None:
    clock = MovedClock(shifted)
    receiver.answer = answering(500)
    await subscribe(shifted, receiver.url)
    gaps = []
    async with notifying(shifted, urls.amqp, delays=DELAYS, clock=clock) as notifier:
        await notifier.tell(await happen(shifted))
        for number in range(1, len(DELAYS) + 1):
            [delivery] = await deliveries(shifted)
            assert (delivery["status"], delivery["attempts"]) == ("retrying", number)
            assert len(receiver.heard) == number
            due, now = delivery["next_attempt_at"], clock.now()
            gaps.append((due - now).total_seconds())
            await clock.move_to(now + (due - now) * 0.9)
            await notifier.sweep()
            assert len(receiver.heard) == number, "not before it is due"
            await clock.move_to(due)
            await notifier.sweep()
    assert len(receiver.heard) == len(DELAYS) + 1 == 10
    [delivery] = await deliveries(shifted)
    assert (delivery["status"], delivery["attempts"]) == ("dead", 10)
    assert [a["number"] for a in await attempts_of(shifted)] == list(range(1, 11))
    for gap, delay in zip(gaps, DELAYS, strict=True):
        assert delay - 1 <= gap <= delay * 1.2, "the delay and up to a fifth more"
    assert clock.shift > sum(DELAYS) - 10
    await assert_deliveries(shifted)
