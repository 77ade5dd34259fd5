"""Exact money: what a client writes becomes an integer of minor units, and back, without loss.

No float is ever made. The bounds are those of the `bigint` column that holds an amount.
"""

import re
from typing import Final

from shared.currencies import DECIMALS

MAX_MINOR: Final = 2**63 - 1
_NUMBER: Final = re.compile(
    r"(?P<sign>-?)(?P<whole>0|[1-9][0-9]*)(?:\.(?P<fraction>[0-9]+))?"
    r"(?:[eE](?P<exponent>[+-]?[0-9]+))?",
    re.ASCII,
)


class InvalidMoney(ValueError):  # noqa: N818 - an answer to a person, not a fault
    """An amount or a currency that cannot be money; the message says why and what would be."""


def decimals_of(currency: str) -> int:
    """The number of decimals of an ISO 4217 code, upper case. Raises InvalidMoney."""
    try:
        return DECIMALS[currency]
    except KeyError:
        raise InvalidMoney(
            "must be an ISO 4217 currency code of three letters, such as THB"
        ) from None


def to_minor(amount: str, currency: str) -> int:
    """Minor units of a decimal number as JSON writes it: `("100.50", "THB")` is 10050.

    Zeros after the last decimal of the currency are the same number and are accepted: `100.500`
    THB is 10050. Raises InvalidMoney for anything that is not exactly a positive amount of the
    currency within a bigint.
    """
    decimals = decimals_of(currency)
    match = _NUMBER.fullmatch(amount)
    if match is None:
        raise InvalidMoney('must be a decimal number such as 100.50 or "100.50"')
    digits = (match["whole"] + (match["fraction"] or "")).lstrip("0")
    if not digits or match["sign"]:
        raise InvalidMoney("must be greater than 0")
    # The value is digits × 10^shift minor units. Work on the digits' text: an exponent of a
    # billion must not become a number of a billion digits.
    significant = digits.rstrip("0")
    exponent = match["exponent"] or "0"
    if len(exponent) > 6:
        raise _beyond(currency) if exponent[0] != "-" else _too_fine(currency, decimals)
    shift = decimals + int(exponent) - len(match["fraction"] or "")
    shift += len(digits) - len(significant)
    if shift < 0:
        raise _too_fine(currency, decimals)
    if len(significant) + shift > 19:
        raise _beyond(currency)
    minor = int(significant + "0" * shift)
    if minor > MAX_MINOR:
        raise _beyond(currency)
    return minor


def to_major(minor: int, currency: str) -> str:
    """The decimal number of `minor` units, with every decimal of the currency: "100.50"."""
    decimals = decimals_of(currency)
    whole, fraction = divmod(abs(minor), 10**decimals)
    text = f"{whole}.{fraction:0{decimals}}" if decimals else str(whole)
    return f"-{text}" if minor < 0 else text


def _too_fine(currency: str, decimals: int) -> InvalidMoney:
    if decimals == 0:
        return InvalidMoney(f"must be a whole number: {currency} has no decimals")
    return InvalidMoney(f"must have at most {decimals} decimals, as {currency} has")


def _beyond(currency: str) -> InvalidMoney:
    return InvalidMoney(
        f"must be at most {to_major(MAX_MINOR, currency)} {currency}, the largest amount that"
        " Florin can hold"
    )
