"""Refunds: never more than was paid, whatever comes at once, twice, or after a crash."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from msgspec.structs import replace

from services.api.accept import IdempotencyMismatch
from services.api.reserve import RefundRefused, Reserved, Reserver
from services.api.store.payments import find_payment
from services.api.store.refunds import find_refund, reserve_refunds
from services.processor.gateways.base import Approved, Declined, Unknown
from services.processor.settlement import Answer, StillUnknown
from services.processor.settler import Answered
from services.processor.store.unsettled import KEPT_CALLS, mark_unknown
from services.processor.work import PAYMENT_WORK, REFUND_WORK
from shared.broker import Publisher
from shared.db import Database
from shared.errors import Transient
from shared.messages import REFUNDS, Item, decode
from shared.topology import PROCESSOR_DEAD, PROCESSOR_REFUNDS
from tests.integration.test_broker import take_all
from tests.invariants import assert_invariants
from tests.settling import (
    Gateway,
    PaymentHandler,
    RefundHandler,
    RefundSettler,
    accept,
    make_handler,
    make_janitor,
    make_reserver,
    make_settler,
    message,
    new_refund,
)
from tests.system import Urls

HUNDRED = 10_000  # 100.00 THB


@pytest.fixture
def payments(empty: Database, publisher: Publisher, gateway: Gateway) -> PaymentHandler:
    return make_handler(make_settler(PAYMENT_WORK, empty, publisher, gateway), publisher)


@pytest.fixture
def settler(empty: Database, publisher: Publisher, gateway: Gateway) -> RefundSettler:
    return make_settler(REFUND_WORK, empty, publisher, gateway)


@pytest.fixture
def refunds(settler: RefundSettler, publisher: Publisher) -> RefundHandler:
    return make_handler(settler, publisher)


@pytest.fixture
def reserver(empty: Database, publisher: Publisher) -> Reserver:
    return make_reserver(empty, publisher)


@pytest.fixture
async def paid(empty: Database, payments: PaymentHandler) -> Item:
    """A completed payment of 100.00."""
    [item] = await accept(empty, 1, amount=HUNDRED)
    await payments.handle(message([item]))
    return item


async def left_of(database: Database, paid: Item) -> int:
    """What can still be refunded of a payment, in minor units."""
    payment = await find_payment(database, paid.account_id, paid.id)
    assert payment is not None
    return payment.amount - payment.amount_refunded


async def status_of(database: Database, reserved: Reserved) -> str:
    refund = await find_refund(database, reserved.refund.account_id, reserved.refund.id)
    assert refund is not None
    return refund.status


def item_of(reserved: Reserved) -> Item:
    return Item(reserved.refund.account_id, reserved.refund.id)


async def test_of_fifty_refunds_of_30_at_once_three_succeed_and_47_hear_why_not(
    empty: Database, publisher: Publisher, paid: Item
) -> None:
    processes = [make_reserver(empty, publisher) for _ in range(3)]
    results = await asyncio.gather(
        *(processes[n % 3].reserve(new_refund(paid, 3_000)) for n in range(50)),
        return_exceptions=True,
    )
    made = [result for result in results if isinstance(result, Reserved)]
    refused = [result.refused for result in results if isinstance(result, RefundRefused)]
    assert (len(made), len(refused)) == (3, 47)
    assert {(r.code, r.missing) for r in refused} == {("amount_too_large", False)}
    assert "30.00 THB is more than the 10.00 THB that are left" in refused[0].message
    assert await left_of(empty, paid) == 1_000
    await assert_invariants(empty)


async def test_a_refund_without_an_amount_is_of_what_is_left(
    empty: Database, reserver: Reserver, paid: Item
) -> None:
    await reserver.reserve(new_refund(paid, 3_000))
    rest = await reserver.reserve(new_refund(paid))
    assert rest.refund.amount == 7_000
    with pytest.raises(RefundRefused) as nothing_left:
        await reserver.reserve(new_refund(paid))
    assert nothing_left.value.refused.code == "charge_already_refunded"
    await assert_invariants(empty)


async def test_the_rest_and_parts_at_once_never_exceed_the_payment(
    empty: Database, publisher: Publisher, paid: Item
) -> None:
    processes = [make_reserver(empty, publisher) for _ in range(4)]
    amounts = [None, 1, 2_500, 9_999, None, 5_000, 3_333, 1, 100, None]
    results = await asyncio.gather(
        *(processes[n % 4].reserve(new_refund(paid, amounts[n % 10])) for n in range(80)),
        return_exceptions=True,
    )
    made = [result.refund.amount for result in results if isinstance(result, Reserved)]
    assert sum(made) == HUNDRED
    assert all(isinstance(r, Reserved | RefundRefused) for r in results)
    await assert_invariants(empty)


async def test_a_completed_refund_moves_the_money_back_once_however_often_it_comes(
    empty: Database,
    publisher: Publisher,
    gateway: Gateway,
    reserver: Reserver,
    refunds: RefundHandler,
    paid: Item,
) -> None:
    other = make_handler(make_settler(REFUND_WORK, empty, publisher, gateway), publisher)
    reserved = await reserver.reserve(new_refund(paid, 3_000))
    await asyncio.gather(
        *(
            (refunds, other)[n % 2].handle(message([item_of(reserved)], REFUND_WORK))
            for n in range(10)
        )
    )
    assert await status_of(empty, reserved) == "completed"
    rows = await empty.fetch("SELECT debit, credit, amount FROM transfers WHERE kind = 'refund'")
    assert [tuple(row.values()) for row in rows] == [
        ("merchant_balance", "gateway_clearing", 3_000)
    ]
    balances = await empty.fetch("SELECT * FROM ledger_accounts ORDER BY kind")
    assert [(b["kind"], b["debits_posted"], b["credits_posted"]) for b in balances] == [
        ("gateway_clearing", HUNDRED, 3_000),
        ("merchant_balance", 3_000, HUNDRED),
    ]
    assert await left_of(empty, paid) == 7_000
    await refunds.handle(message([item_of(reserved)], REFUND_WORK))
    await assert_invariants(empty)


async def test_a_failed_refund_gives_its_reservation_back_once(
    empty: Database, gateway: Gateway, reserver: Reserver, refunds: RefundHandler, paid: Item
) -> None:
    reserved = await reserver.reserve(new_refund(paid))
    gateway.outcomes[reserved.refund.id] = Declined("expired_card", "The card has expired.")
    assert await left_of(empty, paid) == 0
    for _ in range(3):
        await refunds.handle(message([item_of(reserved)], REFUND_WORK))
    assert await status_of(empty, reserved) == "failed"
    assert await left_of(empty, paid) == HUNDRED
    assert await empty.fetchval("SELECT count(*) FROM transfers WHERE kind = 'refund'") == 0
    await assert_invariants(empty)
    again = await reserver.reserve(new_refund(paid))
    await refunds.handle(message([item_of(again)], REFUND_WORK))
    assert await status_of(empty, again) == "completed"
    await assert_invariants(empty)


async def test_refunds_fail_and_are_reserved_at_the_same_time(
    empty: Database, gateway: Gateway, publisher: Publisher, refunds: RefundHandler, paid: Item
) -> None:
    reserver = make_reserver(empty, publisher)
    first = [await reserver.reserve(new_refund(paid, 1_000)) for _ in range(10)]
    for reserved in first[::2]:
        gateway.outcomes[reserved.refund.id] = Declined("no", "No.")
    others = [make_reserver(empty, publisher) for _ in range(3)]
    results = await asyncio.gather(
        *(refunds.handle(message([item_of(reserved)], REFUND_WORK)) for reserved in first),
        *(others[n % 3].reserve(new_refund(paid, 700)) for n in range(30)),
        return_exceptions=True,
    )
    assert all(r is None or isinstance(r, Reserved | RefundRefused) for r in results), results
    await assert_invariants(empty)


@pytest.mark.parametrize("outcome", ["pending", "failed"])
async def test_only_a_completed_payment_can_be_refunded(
    outcome: str,
    empty: Database,
    gateway: Gateway,
    payments: PaymentHandler,
    reserver: Reserver,
) -> None:
    [item] = await accept(empty, 1)
    if outcome == "failed":
        gateway.outcomes[item.id] = Declined("no", "No.")
        await payments.handle(message([item]))
    with pytest.raises(RefundRefused) as refused:
        await reserver.reserve(new_refund(item, 1))
    assert refused.value.refused.code == "charge_not_refundable"
    assert f"is {outcome}" in refused.value.refused.message
    await assert_invariants(empty)


async def test_a_payment_of_another_account_cannot_be_refunded(
    empty: Database, reserver: Reserver, paid: Item
) -> None:
    with pytest.raises(RefundRefused) as refused:
        await reserver.reserve(new_refund(Item("acct_other", paid.id), 1))
    assert refused.value.refused.missing
    assert await left_of(empty, paid) == HUNDRED


async def test_an_amount_beyond_every_payment_is_refused_and_not_an_overflow(
    reserver: Reserver, paid: Item
) -> None:
    await reserver.reserve(new_refund(paid, 1))
    with pytest.raises(RefundRefused):
        await reserver.reserve(new_refund(paid, 2**63 - 1))


async def test_thirty_at_once_with_one_key_are_one_refund(
    empty: Database, publisher: Publisher, paid: Item
) -> None:
    processes = [make_reserver(empty, publisher) for _ in range(3)]
    answers = await asyncio.gather(
        *(processes[n % 3].reserve(new_refund(paid, 3_000, "once")) for n in range(30))
    )
    assert len({answer.refund for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert await left_of(empty, paid) == 7_000
    messages = await empty.fetch("SELECT body FROM outbox WHERE routing_key = 'refunds'")
    assert sum(len(decode(row["body"].encode(), REFUNDS)) for row in messages) == 1
    await assert_invariants(empty)


async def test_keys_that_processes_meet_on_different_payments_are_one_refund_each(
    empty: Database, publisher: Publisher, payments: PaymentHandler
) -> None:
    items = await accept(empty, 20, amount=HUNDRED)
    await payments.handle(message(items))
    processes = [make_reserver(empty, publisher) for _ in range(3)]
    results = await asyncio.gather(
        *(
            process.reserve(new_refund(item, 100, f"key-{(n + shift) % 20}"))
            for shift, process in enumerate(processes)
            for n, item in enumerate(items)
        ),
        return_exceptions=True,
    )
    assert all(isinstance(r, Reserved | IdempotencyMismatch) for r in results), results
    assert await empty.fetchval("SELECT count(*) FROM refunds") == 20
    await assert_invariants(empty)


async def test_a_key_with_other_parameters_is_a_mismatch_remembered_or_not(
    empty: Database, publisher: Publisher, reserver: Reserver, paid: Item
) -> None:
    await reserver.reserve(new_refund(paid, 3_000, "k"))
    for process in (reserver, make_reserver(empty, publisher)):
        with pytest.raises(IdempotencyMismatch):
            await process.reserve(new_refund(paid, 3_001, "k"))
    assert await left_of(empty, paid) == 7_000


async def test_a_refused_refund_saves_nothing_under_its_key(
    empty: Database, reserver: Reserver, paid: Item
) -> None:
    with pytest.raises(RefundRefused):
        await reserver.reserve(new_refund(paid, HUNDRED + 1, "k"))
    answer = await reserver.reserve(new_refund(paid, HUNDRED, "k"))
    assert not answer.replayed


async def test_a_commit_whose_answer_was_lost_is_found_and_not_made_twice(
    empty: Database, reserver: Reserver, paid: Item
) -> None:
    new = new_refund(paid, 3_000)
    await reserve_refunds(empty, [new])  # committed, and the answer lost on the way
    answer = await reserver.reserve(new)
    assert (answer.refund.id, answer.replayed) == (new.id, False)
    assert await left_of(empty, paid) == 7_000
    await assert_invariants(empty)


async def test_a_row_that_postgres_refuses_fails_alone_and_nothing_is_reserved_twice(
    empty: Database, publisher: Publisher, paid: Item, payments: PaymentHandler
) -> None:
    items = [paid, *(await accept(empty, 7, amount=HUNDRED))]
    await payments.handle(message(items))
    reserver = make_reserver(empty, publisher)
    asked = [new_refund(items[n % 8], 100) for n in range(24)]
    poison = replace(new_refund(items[5], 100), reason="\0")
    results = await asyncio.gather(
        *(reserver.reserve(new) for new in [*asked, poison]), return_exceptions=True
    )
    assert [isinstance(result, Reserved) for result in results] == [True] * 24 + [False]
    assert [await left_of(empty, item) for item in items] == [HUNDRED - 300] * 8
    await assert_invariants(empty)


async def test_silence_is_unknown_and_is_asked_about_with_the_same_key(
    empty: Database,
    gateway: Gateway,
    reserver: Reserver,
    refunds: RefundHandler,
    settler: RefundSettler,
    paid: Item,
    urls: Urls,
) -> None:
    janitor = make_janitor(empty, settler, urls.amqp)
    reserved = await reserver.reserve(new_refund(paid, 3_000))
    gateway.outcomes[reserved.refund.id] = Unknown("no answer")
    await refunds.handle(message([item_of(reserved)], REFUND_WORK))
    assert await status_of(empty, reserved) == "processing"
    assert await left_of(empty, paid) == 7_000, "it may have been given back: still reserved"
    now = datetime.now(UTC)
    assert await janitor.ask_again_once(now + timedelta(seconds=6)) == 1
    gateway.outcomes[reserved.refund.id] = Approved("ref")
    assert await janitor.ask_again_once(now + timedelta(seconds=60)) == 1
    assert await status_of(empty, reserved) == "completed"
    assert set(gateway.asked) == {paid.id, reserved.refund.id}, "never another key"
    calls = await empty.fetchval("SELECT gateway_calls::text FROM refunds")
    assert calls.count('"unknown"') == 2
    assert calls.count('"approved"') == 1
    await assert_invariants(empty)


async def test_losing_every_queue_loses_no_refund(
    empty: Database,
    reserver: Reserver,
    refunds: RefundHandler,
    settler: RefundSettler,
    paid: Item,
    urls: Urls,
) -> None:
    janitor = make_janitor(empty, settler, urls.amqp)
    reserved = [await reserver.reserve(new_refund(paid, 100)) for _ in range(20)]
    await empty.execute("DELETE FROM outbox")  # published, and then the queue was purged
    await empty.execute("UPDATE refunds SET created_at = now() - interval '1 hour'")
    assert set(await janitor.queue_lost_once()) == {r.refund.id for r in reserved}
    while await settler.relay.sweep_once(older_than=0):
        pass
    for found in await take_all(urls.amqp, PROCESSOR_REFUNDS):
        await refunds.handle(message(decode(found.body, REFUNDS), REFUND_WORK))
    assert {await status_of(empty, r) for r in reserved} == {"completed"}
    await assert_invariants(empty)


async def test_an_unknown_refund_goes_to_the_dead_queue(refunds: RefundHandler, urls: Urls) -> None:
    await refunds.handle(message([Item("acct_default", "re_none")], REFUND_WORK))
    [letter] = await take_all(urls.amqp, PROCESSOR_DEAD)
    assert decode(letter.body, REFUNDS) == [Item("acct_default", "re_none")]


async def test_many_refunds_of_one_payment_do_not_keep_others_waiting(
    empty: Database, reserver: Reserver, paid: Item, payments: PaymentHandler
) -> None:
    [other] = await accept(empty, 1, amount=HUNDRED)
    await payments.handle(message([other]))
    done: list[str] = []

    async def ask(name: str, of: Item) -> None:
        await reserver.reserve(new_refund(of, 10))
        done.append(name)

    await asyncio.gather(*(ask("many", paid) for _ in range(100)), ask("one", other))
    assert done.index("one") < 10
    assert await left_of(empty, paid) == HUNDRED - 1000


async def test_what_is_written_late_is_dated_late(
    empty: Database, reserver: Reserver, settler: RefundSettler, paid: Item
) -> None:
    # Approved before Postgres goes away, written when it is back: whoever has read all there was
    # up to a moment must not find more there later.
    reserved = await reserver.reserve(new_refund(paid, 3_000))
    work, failures = settler.work, 2

    class Late:
        def __getattr__(self, name: str) -> object:
            return getattr(work, name)

        async def move(self, *arguments: Any) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise Transient("Postgres is away")
            return await work.move(*arguments)

    settler.work = cast(Any, Late())
    await settler.process([item_of(reserved)])
    rows = await empty.fetch(
        "SELECT id, created_at FROM transfers UNION ALL SELECT id, created_at FROM events"
    )
    assert len(rows) == 5
    for row in rows:
        made = int(row["id"].partition("_")[2][:12], 16) / 1000
        assert abs(row["created_at"].timestamp() - made) < 0.1


async def test_of_two_answers_at_once_the_one_that_knows_counts(
    empty: Database, reserver: Reserver, settler: RefundSettler, gateway: Gateway, paid: Item
) -> None:
    reserved = await reserver.reserve(new_refund(paid, 3_000))
    [subject] = await settler._move([item_of(reserved)])
    assert subject is not None
    now = datetime.now(UTC)
    unknown = Answered(subject, Answer(Unknown("silence"), "refund", now, now))
    approved = Answered(subject, Answer(Approved("ref"), "refund", now, now))
    await settler._move([unknown, approved, unknown])
    assert await status_of(empty, reserved) == "completed"
    await assert_invariants(empty)


async def test_two_janitors_at_once_queue_what_was_lost_once(
    empty: Database, reserver: Reserver, settler: RefundSettler, paid: Item, urls: Urls
) -> None:
    await reserver.reserve(new_refund(paid, 100))
    await empty.execute("UPDATE refunds SET created_at = now() - interval '1 hour'")
    janitors = [make_janitor(empty, settler, urls.amqp) for _ in range(4)]
    found = await asyncio.gather(*(janitor.queue_lost_once() for janitor in janitors))
    assert sorted(map(len, found)) == [0, 0, 0, 1]


async def test_the_record_of_a_silent_gateway_is_bounded(
    empty: Database, reserver: Reserver, settler: RefundSettler, paid: Item
) -> None:
    reserved = await reserver.reserve(new_refund(paid, 100))
    [subject] = await settler._move([item_of(reserved)])
    assert subject is not None
    for n in range(KEPT_CALLS + 5):
        silent = StillUnknown(subject, "", json.dumps({"n": n}))
        await mark_unknown(empty, "refunds", [silent])
    calls = json.loads(await empty.fetchval("SELECT gateway_calls::text FROM refunds"))
    assert [call["n"] for call in calls] == list(range(5, KEPT_CALLS + 5))


async def test_what_is_committed_is_answered_although_a_neighbour_cannot_be(
    empty: Database, publisher: Publisher, paid: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Postgres goes away after the refunds are made, and before it is asked about those that were
    # not: only those may hear that nothing is known of them, or they would be asked for twice.
    async def away(*_: object) -> None:
        raise Transient("Postgres is away")

    monkeypatch.setattr("services.api.reserve.find_standings", away)
    monkeypatch.setattr("services.api.reserve.LOST_ANSWER_RETRY", 0.1)
    reserver = make_reserver(empty, publisher)
    made, unknown = await asyncio.gather(
        reserver.reserve(new_refund(paid, 3_000)),
        reserver.reserve(new_refund(Item("acct_default", "pay_none"), 1)),
        return_exceptions=True,
    )
    assert isinstance(made, Reserved)
    assert isinstance(unknown, Transient)
    assert await left_of(empty, paid) == 7_000
