"""What Florin asks of a payment gateway, and the three answers there are."""

from typing import Protocol

from msgspec import Struct


class Approved(Struct, frozen=True):
    """The money moved. `reference` is the gateway's own name for it."""

    reference: str


class Declined(Struct, frozen=True):
    """The money did not and will not move. `code` is stable; `message` is for people."""

    code: str
    message: str


class Unknown(Struct, frozen=True):
    """No answer that can be trusted: it may have moved. Ask again, with the same key."""

    reason: str


Outcome = Approved | Declined | Unknown


class Charge(Struct, frozen=True):
    """What to take from whom. `key` is the gateway's idempotency key: the payment's id, so that
    every question about one payment is the same question. `amount` is minor units."""

    key: str
    amount: int
    currency: str
    customer: str | None


class Refund(Struct, frozen=True):
    """What to give back. `key` is the gateway's idempotency key: the refund's id. `reference` is
    the gateway's name for the charge. `amount` is minor units."""

    key: str
    amount: int
    currency: str
    reference: str | None


class Gateway(Protocol):
    """A payment gateway. No method raises for a fault: that is an Unknown."""

    name: str

    async def charge(self, charge: Charge) -> Outcome:
        """Take the money, once for each key however often it is asked."""
        ...

    async def refund(self, refund: Refund) -> Outcome:
        """Give money back, once for each key however often it is asked."""
        ...

    async def lookup(self, key: str) -> Outcome | None:
        """What became of a key; None when the gateway has never seen it."""
        ...
