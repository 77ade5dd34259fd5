"""Money is exact: what is written is what is kept, or a clear refusal."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.currencies import DECIMALS
from shared.money import MAX_MINOR, InvalidMoney, decimals_of, to_major, to_minor

currencies = st.sampled_from(sorted(DECIMALS))
amounts = st.integers(1, MAX_MINOR)


@given(amounts, currencies)
def test_every_amount_of_every_currency_survives_the_round_trip(minor: int, currency: str) -> None:
    assert to_minor(to_major(minor, currency), currency) == minor


@given(amounts, currencies)
def test_the_value_counts_and_not_its_spelling(minor: int, currency: str) -> None:
    value = Decimal(minor).scaleb(-decimals_of(currency))
    with_exponent = f"{value:e}" if len(value.as_tuple().digits) < 28 else str(value)
    assert to_minor(with_exponent, currency) == minor
    assert to_minor(f"{minor}e-{decimals_of(currency)}", currency) == minor


@given(amounts.filter(lambda minor: minor % 10), currencies)
def test_a_finer_amount_than_the_currency_has_is_refused(minor: int, currency: str) -> None:
    with pytest.raises(InvalidMoney):
        to_minor(f"{minor}e-{decimals_of(currency) + 1}", currency)


@given(st.integers(MAX_MINOR + 1), currencies)
def test_an_amount_beyond_the_column_is_refused(minor: int, currency: str) -> None:
    with pytest.raises(InvalidMoney, match="at most"):
        to_minor(f"{minor}e-{decimals_of(currency)}", currency)


@given(st.text(max_size=30), currencies)
def test_any_text_is_money_or_is_refused(text: str, currency: str) -> None:
    try:
        minor = to_minor(text, currency)
    except InvalidMoney:
        return
    assert Decimal(text) == Decimal(minor).scaleb(-decimals_of(currency))


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("100.50", "THB", 10050),
        ("100.5", "THB", 10050),
        ("100.500", "THB", 10050),
        ("1E+2", "JPY", 100),
        ("0.001", "KWD", 1),
        ("1234567890123456.78", "USD", 123456789012345678),
        ("0.000000001e9", "JPY", 1),
    ],
)
def test_amounts_as_people_write_them(amount: str, currency: str, minor: int) -> None:
    assert to_minor(amount, currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "reason"),
    [
        ("0", "THB", "greater than 0"),
        ("-0.01", "THB", "greater than 0"),
        ("100.505", "THB", "at most 2 decimals, as THB has"),
        ("1.5", "JPY", "whole number: JPY has no decimals"),
        ("1e400", "USD", "at most 92233720368547758.07 USD"),
        ("1e999999999999", "USD", "at most"),
        ("1e-999999999999", "USD", "decimals"),
        ("NaN", "USD", "decimal number such as"),
        ("Infinity", "USD", "decimal number such as"),
        ("1_000", "USD", "decimal number such as"),
        (" 1", "USD", "decimal number such as"),
        ("+1", "USD", "decimal number such as"),
        ("١", "USD", "decimal number such as"),
        ("1", "XXX", "ISO 4217"),
        ("1", "thb", "ISO 4217"),
    ],
)
def test_what_is_not_money_is_refused_with_the_reason(
    amount: str, currency: str, reason: str
) -> None:
    with pytest.raises(InvalidMoney, match=reason):
        to_minor(amount, currency)
