"""What an answer of the gateway means, and what the sandbox answers."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.processor.gateways.base import Approved, Charge, Declined, Outcome, Refund, Unknown
from services.processor.gateways.sandbox import SandboxGateway
from services.processor.settlement import (
    Answer,
    Move,
    StillUnknown,
    charge_for,
    decide_payment,
    decide_refund,
    refund_for,
)
from services.processor.work import PAYMENT_WORK
from shared.currencies import DECIMALS
from shared.money import MAX_MINOR, to_major
from shared.payment import Payment, iso
from shared.refund import Refund as RefundRow
from shared.states import PAYMENT_MOVES, REFUND_MOVES, PaymentStatus, RefundStatus

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
payments = st.builds(
    Payment,
    account_id=st.just("acct_default"),
    id=st.just("pay_1"),
    amount=st.integers(1, MAX_MINOR),
    currency=st.sampled_from(sorted(DECIMALS)),
    customer=texts,
    description=st.none() | texts,
    metadata=st.dictionaries(texts, texts, max_size=3).map(json.dumps),
    status=st.just(PaymentStatus.PROCESSING),
    created_at=st.just(NOW),
    updated_at=st.just(NOW),
)
refunds = st.builds(
    RefundRow,
    account_id=st.just("acct_default"),
    id=st.just("re_1"),
    payment_id=st.just("pay_1"),
    amount=st.integers(1, MAX_MINOR),
    currency=st.sampled_from(sorted(DECIMALS)),
    payment_reference=texts,
    reason=st.none() | texts,
    metadata=st.dictionaries(texts, texts, max_size=3).map(json.dumps),
    status=st.just(RefundStatus.PROCESSING),
    created_at=st.just(NOW),
    updated_at=st.just(NOW),
)
outcomes = (
    st.builds(Approved, texts) | st.builds(Declined, texts, texts) | st.builds(Unknown, texts)
)


def answer(outcome: Outcome) -> Answer:
    return Answer(outcome, "charge", NOW, NOW)


@given(payments, outcomes)
def test_an_outcome_moves_a_payment_where_it_may_go_with_one_event(
    payment: Payment, outcome: Any
) -> None:
    decision = decide_payment(payment, answer(outcome), "sandbox", NOW)
    calls = decision.call if isinstance(decision, StillUnknown) else decision.calls[1:-1]
    call = json.loads(calls)
    assert (call["question"], call["outcome"]) == ("charge", type(outcome).__name__.lower())
    if isinstance(outcome, Unknown):
        assert decision == StillUnknown(payment, outcome.reason, calls)
        return
    assert isinstance(decision, Move)
    assert decision.expected == "processing"
    assert decision.subject.status in PAYMENT_MOVES[payment.status]
    assert decision.event is not None
    assert (decision.transfer_id is not None) == isinstance(outcome, Approved)
    assert (decision.subject.failure_code is not None) == isinstance(outcome, Declined)
    body = json.loads(decision.event.body)
    assert body["type"] == f"payment.{decision.subject.status}"
    subject = body["data"]["object"]
    assert subject["amount"] == to_major(payment.amount, payment.currency)
    assert subject["metadata"] == json.loads(payment.metadata)
    assert subject["processed_at"] == "2026-01-31T09:30:00.000000Z"


@given(refunds, outcomes)
def test_an_outcome_moves_a_refund_where_it_may_go_with_one_event(
    refund: RefundRow, outcome: Any
) -> None:
    decision = decide_refund(refund, answer(outcome), "sandbox", NOW)
    if isinstance(outcome, Unknown):
        assert isinstance(decision, StillUnknown)
        assert (decision.subject, decision.reason) == (refund, outcome.reason)
        return
    assert isinstance(decision, Move)
    assert decision.expected == "processing"
    assert decision.subject.status in REFUND_MOVES[refund.status]
    assert decision.event is not None
    assert (decision.transfer_id is not None) == isinstance(outcome, Approved)
    assert (decision.subject.failure_code is not None) == isinstance(outcome, Declined)
    body = json.loads(decision.event.body)
    assert body["type"] == f"refund.{decision.subject.status}"
    subject = body["data"]["object"]
    assert (subject["amount"], subject["charge"]) == (refund.amount, refund.payment_id)
    assert subject["balance_transaction"] == decision.transfer_id


@given(payments)
def test_beginning_tells_that_it_is_processing(payment: Payment) -> None:
    move = PAYMENT_WORK.begin(replace(payment, status=PaymentStatus.PENDING), NOW)
    assert (move.expected, move.transfer_id, move.calls) == ("pending", None, "[]")
    assert move.event is not None
    body = json.loads(move.event.body)
    assert body["type"] == "payment.processing"
    assert body["data"]["object"]["status"] == "processing"
    assert body["timestamp"] == body["data"]["object"]["updated_at"] == iso(NOW)


@given(payments)
def test_the_question_is_the_same_however_often_it_is_asked(payment: Payment) -> None:
    assert charge_for(payment) == charge_for(payment)
    assert charge_for(payment).key == payment.id


@given(refunds)
def test_a_refund_names_the_charge_as_the_gateway_does(refund: RefundRow) -> None:
    question = refund_for(refund)
    assert (question.key, question.reference) == (refund.id, refund.payment_reference)


def sandbox(**settings: float) -> tuple[SandboxGateway, list[float]]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    options = {"latency_min": 0.0, "latency_max": 0.0, "failure_rate": 0.0} | settings
    return SandboxGateway(**options, sleep=sleep), slept


def charge(amount: int, key: str = "pay_1") -> Charge:
    return Charge(key, amount, "USD", "u")


@pytest.mark.parametrize(
    ("amount", "code"),
    [(99001, "card_declined"), (99002, "insufficient_funds"), (99003, "expired_card")],
)
async def test_magic_amounts_decline(amount: int, code: str) -> None:
    answer = await sandbox()[0].charge(charge(amount))
    assert isinstance(answer, Declined)
    assert answer.code == code


async def test_a_magic_amount_is_charged_and_cannot_be_given_back() -> None:
    gateway, _ = sandbox()
    assert isinstance(await gateway.charge(charge(99004)), Approved)
    answer = await gateway.refund(Refund("re_1", 99004, "USD", "sandbox_pay_1"))
    assert isinstance(answer, Declined)
    assert answer.code == "expired_or_canceled_card"


async def test_magic_amounts_keep_one_waiting() -> None:
    gateway, slept = sandbox()
    for _ in range(2):
        await gateway.charge(charge(99010))
    assert len(slept) == 1, "silent to the first question, prompt at the second"
    await gateway.charge(charge(99012, "late"))
    assert slept[1] == 3
    await asyncio.gather(*(gateway.charge(charge(99011, "never")) for _ in range(3)))
    assert min(slept[2:]) > 3600


@given(st.text(max_size=30), st.integers(1, 98_000), st.floats(0, 1))
def test_the_same_key_has_the_same_answer_after_a_restart(
    key: str, amount: int, failure_rate: float
) -> None:
    first, second = (
        asyncio.run(sandbox(failure_rate=failure_rate)[0].charge(charge(amount, key)))
        for _ in range(2)
    )
    assert first == second


async def test_the_failure_rate_is_kept() -> None:
    gateway, _ = sandbox(failure_rate=0.1)
    answers = [await gateway.charge(charge(5, f"pay_{n}")) for n in range(2000)]
    assert 120 < sum(isinstance(answer, Declined) for answer in answers) < 280


async def test_a_key_that_was_never_asked_about_is_not_known() -> None:
    assert await sandbox()[0].lookup("pay_1") is None
