"""Moves between states are few, and no money leaves a final one."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from shared.states import (
    DELIVERY_MOVES,
    PAYMENT_MOVES,
    REFUND_MOVES,
    DeliveryStatus,
    PaymentStatus,
    RefundStatus,
    sources,
)

MIGRATIONS = Path(__file__).parents[2] / "deploy" / "migrations"


def test_every_state_has_an_entry_and_every_move_ends_in_a_state() -> None:
    assert set(PAYMENT_MOVES) == set(PaymentStatus)
    assert set(REFUND_MOVES) == set(RefundStatus)
    assert set(DELIVERY_MOVES) == set(DeliveryStatus)


def test_final_states_stay() -> None:
    assert not PAYMENT_MOVES[PaymentStatus.COMPLETED] | PAYMENT_MOVES[PaymentStatus.FAILED]
    assert not REFUND_MOVES[RefundStatus.COMPLETED] | REFUND_MOVES[RefundStatus.FAILED]


def test_a_finished_delivery_moves_only_to_be_made_once_more() -> None:
    for final in (DeliveryStatus.DELIVERED, DeliveryStatus.DEAD):
        assert DELIVERY_MOVES[final] == {DeliveryStatus.RETRYING}


def test_an_outcome_comes_from_processing_alone() -> None:
    assert sources(PAYMENT_MOVES, PaymentStatus.COMPLETED) == [PaymentStatus.PROCESSING]
    assert sources(PAYMENT_MOVES, PaymentStatus.FAILED) == [PaymentStatus.PROCESSING]


@pytest.mark.parametrize(
    ("table", "states"),
    [
        ("payments", PaymentStatus),
        ("refunds", RefundStatus),
        ("deliveries", DeliveryStatus),
    ],
)
def test_the_schema_names_the_same_states(table: str, states: type[StrEnum]) -> None:
    sql = "".join(path.read_text() for path in sorted(MIGRATIONS.glob("*.sql")))
    created = sql[sql.index(f"CREATE TABLE {table} (") :]
    listed = re.search(r"CHECK \(status IN \(([^)]*)\)\)", created)
    assert listed is not None
    changed = re.findall(
        rf"CONSTRAINT {table}_status_check\s+CHECK \(status IN \(([^)]*)\)\)", created
    )
    assert set(re.findall(r"'(\w+)'", [listed[1], *changed][-1])) == set(states)
