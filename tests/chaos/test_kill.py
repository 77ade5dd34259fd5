"""A process dies at any moment: no payment that was accepted is lost, none is settled twice."""

import signal

import pytest

from shared.db import Database
from tests.invariants import assert_invariants, open_payments
from tests.receiver import Receiver
from tests.system import Load, System, eventually


@pytest.mark.parametrize("name", ["processor", "notifier", "api"])
async def test_killing_a_service_mid_load_loses_nothing(
    name: str, system: System, merchant: Receiver, database: Database
) -> None:
    async with Load(system.url).running() as load:
        for _ in range(3):
            await load.more(150)
            pid = system.kill(name, signal.SIGKILL)
            await system.wait_for_restart(name, pid)
        await load.more(100)
    accepted = load.accepted.values()
    assert len(set(accepted)) == len(accepted), "a key is a payment"
    await merchant.wait_until(lambda: merchant.has_heard_the_outcome_of(accepted), 90)

    async def all_settled() -> bool:
        return await open_payments(database) == 0

    await eventually(all_settled)
    assert set(merchant.times("payment.completed")) == set(accepted)
    await eventually_no_attempt_is_open(database)
    await assert_invariants(database)


async def eventually_no_attempt_is_open(database: Database) -> None:
    """Attempts that died with the notifier are made again when their leases run out."""

    async def none_open() -> bool:
        return not await database.fetchval(
            "SELECT 1 FROM deliveries WHERE status IN ('pending', 'retrying') LIMIT 1"
        )

    await eventually(none_open, 60)
