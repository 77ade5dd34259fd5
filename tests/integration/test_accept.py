"""Accepting: one commit for the payment and its message, one payment for a key."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from services.api.accept import Accepted, Acceptor, IdempotencyMismatch
from services.api.store.payments import NewPayment, insert_payments
from shared.broker import Outgoing, Publisher
from shared.db import Database
from shared.errors import Transient
from shared.ids import new_id
from shared.outbox import OutboxRelay
from shared.topology import PROCESSOR_PAYMENTS
from tests.integration.test_broker import take_all
from tests.invariants import assert_invariants
from tests.system import Urls


def new_payment(**changes: Any) -> NewPayment:
    payment = NewPayment(
        account_id="acct_default",
        id=new_id("pay"),
        amount=10050,
        currency="THB",
        customer="user123",
        description=None,
        metadata="{}",
        idempotency_scope=None,
        idempotency_key=None,
        request_fingerprint=None,
        request_id=new_id("req"),
    )
    return replace(payment, **changes)


def with_key(key: str, **changes: Any) -> NewPayment:
    return new_payment(
        idempotency_scope="payments", idempotency_key=key, request_fingerprint=b"same", **changes
    )


@pytest.fixture
async def acceptor(empty: Database, publisher: Publisher) -> Acceptor:
    return Acceptor(empty, OutboxRelay(empty, publisher), max_batch=200, max_waiting=2000)


async def outbox(database: Database) -> list[dict[str, Any]]:
    rows = await database.fetch("SELECT body FROM outbox ORDER BY id")
    return [json.loads(row["body"]) for row in rows]


async def test_a_payment_and_its_message_are_one_commit(
    acceptor: Acceptor, empty: Database
) -> None:
    new = new_payment()
    accepted = await acceptor.accept(new)
    assert accepted.payment.id == new.id
    [envelope] = await outbox(empty)
    assert envelope == {
        "v": 1,
        "type": "payments",
        "items": [{"id": new.id, "account_id": "acct_default", "request_id": new.request_id}],
    }
    await assert_invariants(empty)


async def test_what_arrives_together_shares_commits_and_messages(
    acceptor: Acceptor, empty: Database
) -> None:
    await asyncio.gather(*(acceptor.accept(new_payment()) for _ in range(150)))
    envelopes = await outbox(empty)
    assert sum(len(envelope["items"]) for envelope in envelopes) == 150
    assert len(envelopes) <= 3
    await assert_invariants(empty)


async def test_thirty_at_once_with_one_key_are_one_payment_and_thirty_equal_answers(
    acceptor: Acceptor, empty: Database, urls: Urls
) -> None:
    other_process = Acceptor(empty, acceptor.relay, max_batch=200, max_waiting=2000)
    answers: list[Accepted] = await asyncio.gather(
        *((acceptor, other_process)[n % 2].accept(with_key("order-1")) for n in range(30))
    )
    assert len({answer.payment for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert await empty.fetchval("SELECT count(*) FROM payments") == 1
    assert sum(len(envelope["items"]) for envelope in await outbox(empty)) == 1


async def test_keys_that_two_processes_meet_in_any_order_do_not_deadlock(
    acceptor: Acceptor, empty: Database
) -> None:
    other_process = Acceptor(empty, acceptor.relay, max_batch=200, max_waiting=2000)
    keys = [f"key-{n}" for n in range(100)]
    for _ in range(5):
        answers = await asyncio.gather(
            *(acceptor.accept(with_key(key)) for key in keys),
            *(other_process.accept(with_key(key)) for key in reversed(keys)),
        )
        assert len({answer.payment.id for answer in answers}) == 100
    assert await empty.fetchval("SELECT count(*) FROM payments") == 100


async def test_a_key_with_other_parameters_is_a_mismatch(acceptor: Acceptor) -> None:
    await acceptor.accept(with_key("k"))
    with pytest.raises(IdempotencyMismatch):
        await acceptor.accept(replace(with_key("k"), amount=1, request_fingerprint=b"other"))


async def test_a_key_belongs_to_one_account_and_route(acceptor: Acceptor) -> None:
    answers = [
        await acceptor.accept(with_key("k")),
        await acceptor.accept(with_key("k", account_id="acct_other")),
        await acceptor.accept(replace(with_key("k"), idempotency_scope="charges")),
    ]
    assert [answer.replayed for answer in answers] == [False] * 3


async def test_a_replay_shows_the_payment_as_it_was_accepted(
    acceptor: Acceptor, empty: Database
) -> None:
    first = await acceptor.accept(with_key("k"))
    await empty.execute(
        """
        UPDATE payments SET status = 'failed', failure_code = 'x', processed_at = now(),
               updated_at = now()
        """
    )
    again = await acceptor.accept(with_key("k"))
    assert again.replayed
    assert again.payment == first.payment


async def test_a_commit_whose_answer_was_lost_is_found_and_not_made_twice(
    acceptor: Acceptor, empty: Database
) -> None:
    new = new_payment()
    await insert_payments(empty, [new])  # committed, and the answer lost on the way
    accepted = await acceptor.accept(new)
    assert (accepted.payment.id, accepted.replayed) == (new.id, False)
    assert len(await outbox(empty)) == 1


async def test_a_row_that_postgres_refuses_fails_alone(acceptor: Acceptor, empty: Database) -> None:
    results = await asyncio.gather(
        *(acceptor.accept(new_payment(description="\0" if n == 7 else None)) for n in range(20)),
        return_exceptions=True,
    )
    assert [n for n, result in enumerate(results) if isinstance(result, Exception)] == [7]
    assert await empty.fetchval("SELECT count(*) FROM payments") == 19


async def test_the_relay_publishes_what_was_committed_and_forgets_it(
    acceptor: Acceptor, empty: Database, urls: Urls
) -> None:
    await asyncio.gather(*(acceptor.accept(new_payment()) for _ in range(50)))
    relay = acceptor.relay
    relay.stop()
    await relay.run()
    assert await outbox(empty) == []
    messages = await take_all(urls.amqp, PROCESSOR_PAYMENTS)
    assert sum(len(json.loads(message.body)["items"]) for message in messages) == 50


async def test_what_is_committed_does_not_wait_for_the_confirms_of_others(
    empty: Database, urls: Urls
) -> None:
    class Late(Publisher):
        """One whose first window is published when the second has been."""

        def __init__(self) -> None:
            super().__init__(urls.amqp, name="late")
            self.asked = asyncio.Event()
            self.second = asyncio.Event()

        async def publish(self, messages: Sequence[Outgoing]) -> None:
            if self.asked.is_set():
                await super().publish(messages)
                self.second.set()
            else:
                self.asked.set()
                await self.second.wait()
                await super().publish(messages)

    publisher = Late()
    relay = OutboxRelay(empty, publisher)
    acceptor = Acceptor(empty, relay, max_batch=200, max_waiting=2000)
    relaying = asyncio.create_task(relay.run())
    async with asyncio.timeout(10):
        await acceptor.accept(new_payment())
        await publisher.asked.wait()
        await acceptor.accept(new_payment())
        relay.stop()
        await relaying
    assert len(await take_all(urls.amqp, PROCESSOR_PAYMENTS)) == 2
    assert await outbox(empty) == []
    await publisher.close()


async def test_the_sweeper_publishes_what_a_crash_left_behind(
    acceptor: Acceptor, empty: Database, urls: Urls
) -> None:
    for _ in range(5):
        await insert_payments(empty, [new_payment()])  # and the process died here
    assert await acceptor.relay.sweep_once() == 0, "the relay has its time first"
    first, second = await asyncio.gather(
        acceptor.relay.sweep_once(older_than=0), acceptor.relay.sweep_once(older_than=0)
    )
    assert {first, second} == {0, 5}, "two sweepers share no row"
    assert len(await take_all(urls.amqp, PROCESSOR_PAYMENTS)) == 5
    assert await outbox(empty) == []


async def test_what_could_not_be_published_stays_for_the_sweeper(
    empty: Database, urls: Urls
) -> None:
    relay = OutboxRelay(empty, Publisher("amqp://127.0.0.1:1/", name="nobody"))
    acceptor = Acceptor(empty, relay, max_batch=200, max_waiting=2000)
    await acceptor.accept(new_payment())
    relay.stop()
    await relay.run()
    assert len(await outbox(empty)) == 1


async def test_what_is_committed_is_answered_although_a_neighbour_cannot_be(
    acceptor: Acceptor, empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Transient("Postgres is away")

    await insert_payments(empty, [with_key("k")])
    monkeypatch.setattr("services.api.accept.find_accepted", away)
    monkeypatch.setattr("services.api.accept.LOST_ANSWER_RETRY", 0.1)
    made, unknown = await asyncio.gather(
        acceptor.accept(new_payment()), acceptor.accept(with_key("k")), return_exceptions=True
    )
    assert isinstance(made, Accepted)
    assert isinstance(unknown, Transient)
    assert await empty.fetchval("SELECT count(*) FROM payments") == 2
