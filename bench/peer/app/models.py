"""The tables, as SQLAlchemy's declarative mapping says them.

`accounts` and `api_keys` have the columns of Florin's, so that a measurement makes accounts in
either in one way.
"""

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Literal
from uuid import uuid4

from sqlalchemy import ARRAY, ForeignKey, Identity, LargeBinary, Numeric, String, UniqueConstraint
from sqlalchemy import DateTime as DateTime_
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.sql import func

PaymentStatus = Literal["pending", "processing", "completed"]
DeliveryStatus = Literal["pending", "retrying", "delivered", "dead"]
BalanceKind = Literal["gateway_clearing", "merchant_balance"]


def new_id(prefix: str) -> str:
    """A fresh id, such as `pay_5f3c…`."""
    return f"{prefix}_{uuid4().hex}"


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


Number = Annotated[int, mapped_column(Identity(), primary_key=True)]
Amount = Annotated[Decimal, mapped_column(Numeric(18, 2))]
Currency = Annotated[str, mapped_column(String(3))]
AccountId = Annotated[str, mapped_column(ForeignKey("accounts.id"))]
Created = Annotated[datetime, mapped_column(server_default=func.now())]


class Base(DeclarativeBase):
    """What all tables have in common."""

    type_annotation_map = {datetime: DateTime_(timezone=True)}  # noqa: RUF012 - as documented


class Account(Base):
    """A merchant."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[Created]


class ApiKey(Base):
    """A merchant's key, of which the SHA-256 alone is stored."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[AccountId]
    prefix: Mapped[str]
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    role: Mapped[str]
    created_at: Mapped[Created]


class Payment(Base):
    """A payment on its way from pending to completed."""

    __tablename__ = "payments"
    __table_args__ = (UniqueConstraint("account_id", "idempotency_key"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "pay"))
    account_id: Mapped[AccountId]
    idempotency_key: Mapped[str | None]
    user_id: Mapped[str]
    amount: Mapped[Amount]
    currency: Mapped[Currency]
    description: Mapped[str | None]
    status: Mapped[PaymentStatus] = mapped_column(default="pending")
    gateway_reference: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class Balance(Base):
    """What one side of an account's ledger comes to in a currency."""

    __tablename__ = "balances"

    account_id: Mapped[AccountId] = mapped_column(primary_key=True)
    currency: Mapped[Currency] = mapped_column(primary_key=True)
    kind: Mapped[BalanceKind] = mapped_column(primary_key=True)
    debits: Mapped[Amount] = mapped_column(default=0)
    credits: Mapped[Amount] = mapped_column(default=0)


class Transfer(Base):
    """Double entry: one amount from one balance to another."""

    __tablename__ = "transfers"

    id: Mapped[Number]
    account_id: Mapped[AccountId]
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"), unique=True)
    debit: Mapped[BalanceKind]
    credit: Mapped[BalanceKind]
    amount: Mapped[Amount]
    currency: Mapped[Currency]
    created_at: Mapped[Created]


class Event(Base):
    """What happened to a payment; `body` is exactly what is signed and sent."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("payment_id", "type"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[AccountId]
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"))
    type: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[Created]

    deliveries: Mapped[list["Delivery"]] = relationship(back_populates="event")


class WebhookEndpoint(Base):
    """Where a merchant hears of events."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "we"))
    account_id: Mapped[AccountId] = mapped_column(index=True)
    url: Mapped[str]
    enabled_events: Mapped[list[str]] = mapped_column(ARRAY(String))
    secret: Mapped[str]
    created_at: Mapped[Created]


class Delivery(Base):
    """One event on its way to one endpoint."""

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("event_id", "endpoint_id"),)

    id: Mapped[Number]
    event_id: Mapped[str] = mapped_column(ForeignKey("events.id"))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    status: Mapped[DeliveryStatus] = mapped_column(default="pending", server_default="pending")
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[Created]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=utc_now)

    event: Mapped[Event] = relationship(back_populates="deliveries")
    endpoint: Mapped[WebhookEndpoint] = relationship()


class DeliveryAttempt(Base):
    """One request to an endpoint, and what came of it."""

    __tablename__ = "delivery_attempts"

    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    duration_ms: Mapped[int]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
