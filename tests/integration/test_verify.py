"""`./florin verify` finds whatever breaks a rule, and nothing where none is broken."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.verify import examine
from services.api.store.refunds import reserve_refunds
from services.notifier.store.retention import mark_pruned
from services.processor.gateways.base import Declined
from shared.broker import Publisher
from shared.db import Database
from shared.messages import Item
from tests.integration.test_settle import handler, settler
from tests.settling import (
    REFUND_WORK,
    Gateway,
    PaymentHandler,
    accept,
    make_handler,
    make_settler,
    message,
    new_refund,
)
from tests.system import Urls, run_command
from tests.telling import subscribe

__all__ = ["handler", "settler"]  # fixtures


@pytest.fixture
async def filled(
    empty: Database, handler: PaymentHandler, gateway: Gateway, publisher: Publisher
) -> Database:
    """Settled payments in two currencies, one of them failed; refunds, one of them failed."""
    items = await accept(empty, 10) + await accept(empty, 5, currency="JPY")
    gateway.outcomes[items[3].id] = Declined("card_declined", "No.")
    await handler.handle(message(items))
    paid, other = items[0], items[1]
    given = [new_refund(paid, 50), new_refund(other, 60), new_refund(other, 70)]
    for refund in given:
        await reserve_refunds(empty, [refund])
    gateway.outcomes[given[2].id] = Declined("no", "No.")
    settler = make_settler(REFUND_WORK, empty, publisher, gateway)
    await make_handler(settler, publisher).handle(
        message([Item(refund.account_id, refund.id) for refund in given], REFUND_WORK)
    )
    await empty.execute("ALTER TABLE transfers DISABLE TRIGGER USER")
    return empty


async def broken_rules(database: Database, grace: float = 0) -> set[str]:
    findings = await examine(database, grace=grace)
    return {finding.rule for finding in findings if finding.violations}


async def test_a_sound_system_breaks_no_rule_and_says_what_was_checked(filled: Database) -> None:
    findings = await examine(filled, grace=0)
    assert {finding.invariant for finding in findings} == {1, 2, 3, 4, 5, 6}
    assert [finding for finding in findings if finding.violations] == []
    checked = {finding.rule: finding.checked for finding in findings}
    assert checked["payments = pending + processing + completed + failed, as counted"] == 15
    assert checked["a completed payment has one transfer of its amount; no other has one"] == 14


VERIFY = ("verify", "--database-url")
SOME = "(SELECT min(id) FROM payments WHERE status = 'completed')"
STRAY_COUNT = """
    INSERT INTO arrivals (account_id, object, currency, status, number, amount)
    VALUES ('acct_default', 'payment', 'USD', 'pending', 1, 100),
           ('acct_default', 'payment', 'USD', 'processing', 1, 90)"""
REVERSED_REFUND = """
    UPDATE transfers SET debit = credit, credit = debit WHERE kind = 'refund'"""
STRAY_EVENT = f"""
    INSERT INTO events (account_id, id, type, object_id, body)
    VALUES ('acct_default', 'evt_x', 'payment.failed', {SOME}, '')"""
OLD_ENDPOINT = """
    INSERT INTO webhook_subscriptions (account_id, endpoint_id, enabled_events, since)
    VALUES ('acct_default', 'we_x', '{*}', now() - interval '1 day')"""
STRAY_DELIVERY = """
    INSERT INTO deliveries (account_id, id, event_id, endpoint_id, attempts)
    VALUES ('acct_default', 'dlv_x', 'evt_x', 'we_x', 2)"""
OLD_DELIVERY = """
    INSERT INTO deliveries (account_id, id, event_id, endpoint_id, created_at)
    VALUES ('acct_default', 'dlv_x', 'evt_x', 'we_x', now() - interval '1 hour')"""
OLD_MESSAGE = """
    INSERT INTO outbox (exchange, routing_key, body, created_at)
    VALUES ('x', 'x', 'x', now() - interval '1 hour')"""


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ("DELETE FROM payments WHERE status = 'failed'", "as counted"),
        ("UPDATE arrivals SET amount = amount + 1", "as counted"),
        (STRAY_COUNT, "as counted"),
        (f"DELETE FROM transfers WHERE source_id = {SOME}", "has one transfer"),
        (f"UPDATE transfers SET amount = 1 WHERE source_id = {SOME}", "has one transfer"),
        (f"UPDATE transfers SET source_id = 'pay_x' WHERE source_id = {SOME}", "has one transfer"),
        ("DELETE FROM transfers WHERE kind = 'refund'", "completed refund has one transfer"),
        (REVERSED_REFUND, "completed refund has one transfer"),
        ("UPDATE transfers SET amount = 1 WHERE kind = 'refund'", "refund has one transfer"),
        ("UPDATE payments SET amount_refunded = 0 WHERE amount_refunded = 50", "add up to"),
        ("UPDATE refunds SET amount = 61 WHERE amount = 60", "add up to"),
        ("DELETE FROM refunds WHERE status = 'failed'", "refunds = pending"),
        ("DELETE FROM events WHERE type = 'refund.failed'", "exactly one event"),
        (f"UPDATE transfers SET currency = 'USD' WHERE source_id = {SOME}", "has one transfer"),
        (
            "UPDATE payments SET amount_refunded = 1 WHERE status = 'failed'",
            "no more is refunded",
        ),
        ("UPDATE ledger_accounts SET debits_posted = debits_posted + 1", "sum of its transfers"),
        ("DELETE FROM ledger_accounts WHERE currency = 'JPY'", "sum of its transfers"),
        (
            "UPDATE ledger_accounts SET credits_posted = 0 WHERE currency = 'JPY'",
            "all debits = all credits",
        ),
        (
            f"DELETE FROM events WHERE object_id = {SOME} AND type = 'payment.completed'",
            "exactly one event",
        ),
        (STRAY_EVENT, "exactly one event"),
        (OLD_ENDPOINT, "has a delivery for each endpoint"),
        ("DELETE FROM events WHERE sequence = 3", "events are numbered without gaps"),
        ("UPDATE event_sequences SET last = last + 1", "events are numbered without gaps"),
        ("DELETE FROM event_sequences", "events are numbered without gaps"),
        (STRAY_DELIVERY, "attempts are numbered without gaps"),
        (OLD_DELIVERY, "longest overdue delivery"),
        (OLD_MESSAGE, "oldest unpublished message"),
    ],
)
async def test_damage_is_found(damage: str, rule: str, filled: Database) -> None:
    await filled.execute("DELETE FROM outbox")
    assert await broken_rules(filled) == set()
    await filled.execute(damage)
    broken = await broken_rules(filled)
    assert any(rule in found for found in broken), broken


async def test_what_retention_has_forgotten_is_not_missed(filled: Database) -> None:
    await filled.execute("UPDATE payments SET processed_at = now() - interval '91 days'")
    await filled.execute("UPDATE refunds SET processed_at = now() - interval '91 days'")
    await filled.execute("UPDATE events SET created_at = now() - interval '91 days'")
    month_old = datetime.now(UTC) - timedelta(days=30)
    await mark_pruned(filled, month_old)
    await filled.execute("DELETE FROM events WHERE sequence BETWEEN 3 AND 20")
    assert await broken_rules(filled) == set()
    await filled.execute("UPDATE payments SET processed_at = now() WHERE status = 'completed'")
    assert await broken_rules(filled) == {"an outcome has exactly one event that says so"}


async def test_numbers_that_are_not_in_the_order_of_times_are_no_gap(filled: Database) -> None:
    await mark_pruned(filled, datetime.now(UTC) - timedelta(days=30))
    # Number 5 was given after number 4, to a statement that had begun long before it.
    await filled.execute(
        "UPDATE events SET created_at = now() - interval '40 days' WHERE sequence IN (1, 2, 5)"
    )
    await filled.execute("DELETE FROM events WHERE sequence < 3")
    await filled.execute("UPDATE payments SET processed_at = now() - interval '41 days'")
    await filled.execute("UPDATE refunds SET processed_at = now() - interval '41 days'")
    assert await broken_rules(filled) == set()


async def test_a_long_backlog_is_no_fault_while_somebody_works_on_it(filled: Database) -> None:
    await subscribe(filled, "http://127.0.0.1:1/")
    await filled.execute("UPDATE webhook_endpoints SET id = 'we_x'")
    await filled.execute(
        """
        INSERT INTO deliveries (account_id, id, event_id, endpoint_id, status, attempts,
                                next_attempt_at)
        SELECT 'acct_default', 'dlv_' || n, 'evt_' || n, 'we_x', 'retrying', 1,
               now() - interval '1 hour'
          FROM generate_series(1, 3) AS n
        """
    )
    await filled.execute(
        """
        INSERT INTO delivery_attempts (account_id, delivery_id, number, started_at)
        SELECT account_id, id, 1, now() - interval '1 minute' FROM deliveries
        """
    )
    assert await broken_rules(filled) == set()
    await filled.execute("UPDATE delivery_attempts SET started_at = now() - interval '11 minutes'")
    assert await broken_rules(filled) == {
        "longest overdue delivery to an endpoint that is sent nothing"
    }


async def test_work_that_waits_too_long_is_found(filled: Database) -> None:
    await accept(filled, 1)
    assert await broken_rules(filled) == set()
    await filled.execute(
        "UPDATE payments SET created_at = now() - interval '1 hour' WHERE status = 'pending'"
    )
    assert await broken_rules(filled) == {"oldest payment without an outcome"}


async def test_an_event_has_time_to_find_its_endpoints(filled: Database) -> None:
    await subscribe(filled, "http://127.0.0.1:1/")
    await filled.execute("UPDATE webhook_subscriptions SET since = now() - interval '1 day'")
    assert "an event has a delivery for each endpoint that was subscribed" in await broken_rules(
        filled
    )
    assert await broken_rules(filled, grace=60) == set()


async def test_the_command_prints_a_table_and_its_status_says_whether_all_is_well(
    filled: Database, urls: Urls
) -> None:
    status, output = await run_command(*VERIFY, urls.database)
    assert (status, "every rule holds" in output) == (0, True), output
    await filled.execute(f"DELETE FROM transfers WHERE source_id = {SOME}")
    id_ = await filled.fetchval(f"SELECT {SOME}")
    status, output = await run_command(*VERIFY, urls.database)
    assert status == 1
    assert id_ in output
    status, output = await run_command(*VERIFY, urls.database, "--json")
    found: dict[str, Any] = json.loads(output)
    assert (status, found["ok"]) == (1, False)
    assert [id_, "completed 10050, moved "] in [
        offending for finding in found["findings"] for offending in finding["offending"]
    ]
