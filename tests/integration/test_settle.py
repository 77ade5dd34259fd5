"""Settling: once, whatever comes twice, at once, or after a crash."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate

import pytest
from structlog.testing import capture_logs

from services.processor.folding import Folder
from services.processor.gateways.base import Approved, Declined, Unknown
from services.processor.settlement import Answer, Move, begin_payment, decide_payment
from services.processor.store.payments import load_payments, move_payments
from services.processor.store.unsettled import find_unknown
from services.processor.work import PAYMENT_WORK
from shared.broker import Delivery, Publisher
from shared.db import Database, RowRefused
from shared.messages import EVENTS, PAYMENTS, Item, decode, encode
from shared.topology import EVENTS as EVENTS_EXCHANGE
from shared.topology import NOTIFIER_EVENTS, PROCESSOR_DEAD, PROCESSOR_PAYMENTS, REASON_HEADER
from tests.integration.test_broker import bind_queue, take_all
from tests.invariants import assert_invariants, open_payments
from tests.settling import (
    Gateway,
    PaymentHandler,
    PaymentSettler,
    accept,
    make_handler,
    make_janitor,
    make_settler,
    message,
)
from tests.system import Urls, eventually


@pytest.fixture
def settler(empty: Database, publisher: Publisher, gateway: Gateway) -> PaymentSettler:
    return make_settler(PAYMENT_WORK, empty, publisher, gateway)


@pytest.fixture
def handler(settler: PaymentSettler, publisher: Publisher) -> PaymentHandler:
    return make_handler(settler, publisher)


async def statuses(database: Database) -> dict[str, int]:
    rows = await database.fetch("SELECT status, count(*) AS n FROM payments GROUP BY status")
    return {row["status"]: row["n"] for row in rows}


async def test_an_envelope_is_settled_with_transfers_balances_and_events(
    handler: PaymentHandler, gateway: Gateway, empty: Database
) -> None:
    items = await accept(empty, 20)
    gateway.outcomes[items[3].id] = Declined("card_declined", "The card was declined.")
    await handler.handle(message(items))
    assert await statuses(empty) == {"completed": 19, "failed": 1}
    balances = await empty.fetch("SELECT * FROM ledger_accounts ORDER BY kind")
    assert [(b["kind"], b["debits_posted"], b["credits_posted"]) for b in balances] == [
        ("gateway_clearing", 19 * 10050, 0),
        ("merchant_balance", 0, 19 * 10050),
    ]
    rows = await empty.fetch("SELECT body FROM outbox WHERE exchange = 'events'")
    told = Counter(item["type"] for row in rows for item in json.loads(row["body"])["items"])
    assert told == {"payment.processing": 20, "payment.completed": 19, "payment.failed": 1}
    await assert_invariants(empty)


async def test_one_message_tells_of_a_commit_and_reaches_whoever_asked_for_any_of_its_events(
    handler: PaymentHandler,
    settler: PaymentSettler,
    gateway: Gateway,
    empty: Database,
    urls: Urls,
) -> None:
    asked_for = {"failures": "payment.failed", "all": "payment.*", "refunds": "refund.*"}
    for queue, key in asked_for.items():
        await bind_queue(urls.amqp, queue, EVENTS_EXCHANGE, key)
    items = await accept(empty, 20)
    gateway.outcomes[items[3].id] = Declined("card_declined", "The card was declined.")
    await handler.handle(message(items))
    commits = await empty.fetchval("SELECT count(DISTINCT updated_at) FROM payments") + 1
    await settler.relay.sweep_once(older_than=0)
    heard = {
        queue: [[item["type"] for item in json.loads(one.body)["items"]] for one in messages]
        for queue in asked_for
        if (messages := await take_all(urls.amqp, queue))
    }
    assert len(heard["all"]) == commits == 2, "one to begin them, one with what came of them"
    assert heard["failures"] == [types for types in heard["all"] if "payment.failed" in types]
    assert Counter(heard["failures"][0]) == {"payment.completed": 19, "payment.failed": 1}
    assert "refunds" not in heard
    assert len(await take_all(urls.amqp, NOTIFIER_EVENTS)) == 2
    await take_all(urls.amqp, PROCESSOR_PAYMENTS)


async def test_a_message_that_comes_ten_times_at_once_moves_money_once(
    handler: PaymentHandler, empty: Database, publisher: Publisher, gateway: Gateway
) -> None:
    other = make_handler(make_settler(PAYMENT_WORK, empty, publisher, gateway), publisher)
    items = await accept(empty, 30)
    await asyncio.gather(*((handler, other)[n % 2].handle(message(items)) for n in range(10)))
    assert await statuses(empty) == {"completed": 30}
    await assert_invariants(empty)
    await handler.handle(message(items))
    await assert_invariants(empty)


async def test_a_copy_that_the_janitor_queued_shares_a_batch_with_the_original(
    handler: PaymentHandler, empty: Database
) -> None:
    items = await accept(empty, 20)
    originals = [Item(item.account_id, item.id, "req_1") for item in items]
    await asyncio.gather(handler.handle(message(originals)), handler.handle(message(items)))
    assert await statuses(empty) == {"completed": 20}
    await assert_invariants(empty)


async def test_many_settlers_on_one_balance_do_not_deadlock(
    empty: Database, publisher: Publisher, gateway: Gateway
) -> None:
    items = [
        item
        for currency in ("THB", "USD", "EUR", "JPY")
        for item in await accept(empty, 50, currency=currency)
    ]
    settlers = [make_settler(PAYMENT_WORK, empty, publisher, gateway) for _ in range(4)]
    with capture_logs() as logs:
        await asyncio.gather(*(settlers[n % 4].process([item]) for n, item in enumerate(items)))
    assert logs == [], "a deadlock would be tried again, and say so"
    assert await statuses(empty) == {"completed": 200}
    await assert_invariants(empty)


async def test_an_envelope_waits_for_nothing_and_takes_along_what_was_answered(
    empty: Database, publisher: Publisher, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.processor.settler.SPACING", 3600.0)
    settler = make_settler(PAYMENT_WORK, empty, publisher, gateway)
    handler = make_handler(settler, publisher)
    earlier, later = await accept(empty, 3), await accept(empty, 2)

    async def are_asked(count: int) -> bool:
        return len(gateway.asked) == count

    handling = [asyncio.create_task(handler.handle(message(earlier)))]
    await eventually(partial(are_asked, 3))
    handling.append(asyncio.create_task(handler.handle(message(later))))
    async with asyncio.timeout(5):
        await handling[0]
    assert await statuses(empty) == {"completed": 3, "processing": 2}
    await eventually(partial(are_asked, 5))
    await settler._steps.drain()
    await handling[1]
    assert await statuses(empty) == {"completed": 5}


async def test_in_a_backlog_what_was_begun_is_finished_before_more_is_begun(
    handler: PaymentHandler, empty: Database, settler: PaymentSettler
) -> None:
    size = settler.max_batch
    items = await accept(empty, 20 * size)
    envelopes = [message(items[n : n + size]) for n in range(0, len(items), size)]
    await asyncio.gather(*(handler.handle(envelope) for envelope in envelopes))
    rows = await empty.fetch(
        "SELECT CASE type WHEN 'payment.processing' THEN 1 ELSE -1 END AS step"
        " FROM events ORDER BY created_at, type"
    )
    under_way = list(accumulate(row["step"] for row in rows))
    assert under_way[-1] == 0
    assert max(under_way) <= 3 * size


async def test_a_crash_between_claim_and_answer_is_asked_again_with_the_same_key(
    handler: PaymentHandler, gateway: Gateway, empty: Database, settler: PaymentSettler
) -> None:
    [item] = await accept(empty, 1)
    await settler._move([item])  # and the process died here
    assert await statuses(empty) == {"processing": 1}
    await handler.handle(message([item]))
    assert gateway.asked == [item.id]
    assert await statuses(empty) == {"completed": 1}
    await assert_invariants(empty)


async def test_a_settled_payment_stays_as_it_is(empty: Database, handler: PaymentHandler) -> None:
    [item] = await accept(empty, 1)
    early = (await load_payments(empty, [item]))[item.id]
    await handler.handle(message([item]))
    settled = (await load_payments(empty, [item]))[item.id]
    now = datetime.now(UTC)
    late = Answer(Declined("late", "Too late."), "charge", now, now)
    for subject in (early, settled):
        contrary = decide_payment(subject, late, "x", now)
        assert isinstance(contrary, Move)
        for move in (contrary, begin_payment(subject, now)):
            assert await move_payments(empty, [move]) == (set(), [])
    assert await statuses(empty) == {"completed": 1}
    await assert_invariants(empty)


async def test_silence_is_unknown_and_not_failed(
    handler: PaymentHandler, gateway: Gateway, empty: Database
) -> None:
    items = await accept(empty, 3)
    gateway.outcomes[items[1].id] = Unknown("no answer")
    await handler.handle(message(items))
    assert await statuses(empty) == {"completed": 2, "processing": 1}
    assert (
        await empty.fetchval("SELECT count(*) FROM payments WHERE unknown_since IS NOT NULL") == 1
    )
    await handler.handle(message(items))  # the message again: the janitor's, not ours
    assert gateway.asked.count(items[1].id) == 1
    await assert_invariants(empty)


async def test_the_janitor_asks_about_the_unknown_until_there_is_an_answer(
    handler: PaymentHandler, settler: PaymentSettler, gateway: Gateway, empty: Database, urls: Urls
) -> None:
    janitor = make_janitor(empty, settler, urls.amqp)
    [item] = await accept(empty, 1)
    gateway.outcomes[item.id] = Unknown("no answer")
    await handler.handle(message([item]))
    now = datetime.now(UTC)
    assert await janitor.ask_again_once(now) == 0, "not yet"
    assert await janitor.ask_again_once(now + timedelta(seconds=6)) == 1
    assert await statuses(empty) == {"processing": 1}
    gateway.outcomes[item.id] = Declined("expired_card", "The card has expired.")
    assert await janitor.ask_again_once(now + timedelta(seconds=60)) == 1
    assert set(gateway.asked) == {item.id}, "never another key"
    assert await statuses(empty) == {"failed": 1}
    await assert_invariants(empty)


async def test_questions_about_the_unknown_come_ever_more_rarely(
    handler: PaymentHandler, settler: PaymentSettler, gateway: Gateway, empty: Database, urls: Urls
) -> None:
    items = await accept(empty, 1)
    gateway.outcomes[items[0].id] = Unknown("no answer")
    await handler.handle(message(items))
    since = await empty.fetchval("SELECT unknown_since FROM payments")
    asked = since
    waits = []
    for second in range(1, 400):
        now = since + timedelta(seconds=second)
        due = await find_unknown(empty, "payments", now=now, shortest=5, longest=100, limit=10)
        if due:
            waits.append(round((now - asked).total_seconds()))
            asked = now
            await empty.execute("UPDATE payments SET updated_at = $1", now)
    assert waits == [5, 5, 10, 20, 40, 80, 100, 100]


async def test_losing_every_queue_loses_no_payment(
    handler: PaymentHandler, settler: PaymentSettler, empty: Database, urls: Urls
) -> None:
    janitor = make_janitor(empty, settler, urls.amqp)
    items = await accept(empty, 250)
    await settler._move(items[:40])
    await empty.execute("DELETE FROM outbox")  # published, and then the queue was purged
    assert await janitor.queue_lost_once() == [], "it may still be on its way"
    await empty.execute("UPDATE payments SET created_at = now() - interval '1 hour'")
    await empty.execute("DELETE FROM sweep_marks")
    assert len(await janitor.queue_lost_once()) == 250
    assert await janitor.queue_lost_once() == [], "not again until its age has doubled"
    while await settler.relay.sweep_once(older_than=0):
        pass
    messages = await take_all(urls.amqp, PROCESSOR_PAYMENTS)
    envelopes = [decode(found.body, PAYMENTS) for found in messages]
    assert max(map(len, envelopes)) <= 100
    await asyncio.gather(*(handler.handle(message(items)) for items in envelopes))
    assert await open_payments(empty) == 0
    await empty.execute("DELETE FROM outbox")
    assert await janitor.queue_lost_once() == []
    await assert_invariants(empty)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", "not JSON"),
        (b'{"v":9,"type":"payments","items":[{"id":"a","account_id":"b"}]}', "version 9"),
        (encode(EVENTS, [Item("a", "b")]).encode(), "does not belong here"),
        (
            encode(PAYMENTS, [Item("acct_default", "pay_none")]).encode(),
            "nothing in payments is pay_none",
        ),
    ],
)
async def test_a_poison_message_goes_to_the_dead_queue_with_the_reason(
    body: bytes, reason: str, handler: PaymentHandler, urls: Urls
) -> None:
    await handler.handle(Delivery(body, {}, redelivered=False))
    [letter] = await take_all(urls.amqp, PROCESSOR_DEAD)
    assert reason in str(letter.headers[REASON_HEADER])


async def test_an_envelope_is_split_when_part_of_it_cannot_be_settled(
    handler: PaymentHandler, gateway: Gateway, empty: Database, urls: Urls
) -> None:
    items = await accept(empty, 20)
    stranger = Item("acct_default", "pay_none")
    gateway.outcomes[items[5].id] = Approved("\0")  # a reference that Postgres refuses
    await handler.handle(message([*items, stranger]))
    assert await statuses(empty) == {"completed": 19, "processing": 1}
    letters = await take_all(urls.amqp, PROCESSOR_DEAD)
    dead = [decode(letter.body, PAYMENTS) for letter in letters]
    assert sorted(dead) == sorted([[items[5]], [stranger]])
    await assert_invariants(empty)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transfers SET amount = 1",
        "DELETE FROM transfers",
        "TRUNCATE transfers",
    ],
)
async def test_the_database_refuses_to_change_a_transfer(
    statement: str, handler: PaymentHandler, empty: Database
) -> None:
    await handler.handle(message(await accept(empty, 1)))
    with pytest.raises(RowRefused):
        await empty.execute(statement)
    await assert_invariants(empty)


async def test_counts_are_folded_and_stay_true(handler: PaymentHandler, empty: Database) -> None:
    for _ in range(6):
        await handler.handle(message(await accept(empty, 2)))

    async def fold() -> None:
        folder = Folder(empty, fold_above=3, piece=5)
        while await folder.fold_once():
            pass

    await asyncio.gather(fold(), fold(), fold())
    await fold()
    kept = await empty.fetch(
        "SELECT count(*) FROM arrivals GROUP BY account_id, object, currency, status"
    )
    assert kept
    assert max(row["count"] for row in kept) <= 3
    await assert_invariants(empty)


async def test_an_event_holds_what_the_row_says(handler: PaymentHandler, empty: Database) -> None:
    [item] = await accept(empty, 1, metadata='{"order": "7"}', description="Tea – ชา")
    await handler.handle(message([item]))
    row = await empty.fetchrow(
        "SELECT body FROM events WHERE object_id = $1 AND type = 'payment.completed'", item.id
    )
    assert row is not None
    subject = json.loads(row["body"])["data"]["object"]
    assert subject["metadata"] == {"order": "7"}
    assert subject["description"] == "Tea – ชา"
    assert (subject["amount"], subject["amount_minor"]) == ("100.50", 10050)
