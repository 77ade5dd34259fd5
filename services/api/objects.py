"""What clients get, as types: the functions that make answers are checked against them, and the
documentation is written from them. Amounts are minor units, times Unix seconds, unless said
otherwise."""

from typing import Any, Generic, Literal, NotRequired, TypeVar

from typing_extensions import TypedDict

from services.api.codes import Code
from shared.payment import PaymentObject
from shared.states import DeliveryStatus

T = TypeVar("T")


class Listing(TypedDict, Generic[T]):
    """A part of a list, newest first."""

    object: Literal["list"]
    url: str
    has_more: bool
    data: list[T]


class AcceptedPayment(TypedDict):
    """A payment that is committed and will be settled."""

    payment_id: str
    status: str
    payment: PaymentObject


class OnePayment(TypedDict):
    """One payment."""

    payment: PaymentObject


class Stats(TypedDict):
    """How many payments stand where, and their amounts by currency in major units."""

    total_payments: int
    pending_payments: int
    processing_payments: int
    completed_payments: int
    failed_payments: int
    total_amount: dict[str, str]


class StatsAnswer(TypedDict):
    """The counts of an account."""

    stats: Stats


class BalanceTransactionObject(TypedDict):
    """One transfer to the merchant's balance, or, with a negative amount, from it."""

    id: str
    object: Literal["balance_transaction"]
    amount: int
    fee: int
    fee_details: list[Any]
    net: int
    currency: str
    created: int
    available_on: int
    description: str | None
    reporting_category: str
    source: str
    status: Literal["available"]
    type: str


class ChargeObject(TypedDict):
    """A payment as Stripe's clients know it."""

    id: str
    object: Literal["charge"]
    amount: int
    amount_captured: int
    amount_refunded: int
    balance_transaction: str | BalanceTransactionObject | None
    billing_details: dict[str, Any]
    captured: bool
    created: int
    currency: str
    customer: str | None
    description: str | None
    disputed: bool
    failure_code: str | None
    failure_message: str | None
    livemode: bool
    metadata: dict[str, str]
    paid: bool
    refunded: bool
    status: Literal["pending", "succeeded", "failed"]


class RefundAnswer(TypedDict):
    """A refund, with what was asked to be expanded in full."""

    id: str
    object: Literal["refund"]
    amount: int
    balance_transaction: str | BalanceTransactionObject | None
    charge: str | ChargeObject
    created: int
    currency: str
    failure_message: str | None
    failure_reason: str | None
    metadata: dict[str, str]
    reason: str | None
    status: Literal["pending", "succeeded", "failed"]


class Money(TypedDict):
    """An amount of one currency."""

    amount: int
    currency: str


class BalanceObject(TypedDict):
    """What is the merchant's, from the ledger, and what is under way."""

    object: Literal["balance"]
    livemode: bool
    available: list[Money]
    pending: list[Money]


class EventData(TypedDict):
    """What an event is about."""

    object: dict[str, Any]


class EventObject(TypedDict):
    """What happened, as it was sent; `timestamp` is RFC 3339. `sequence` counts the account's
    events; a test has none."""

    id: str
    object: Literal["event"]
    type: str
    created: int
    timestamp: str
    livemode: bool
    data: EventData
    pending_webhooks: NotRequired[int]
    sequence: NotRequired[int]


class DeliveryObject(TypedDict):
    """One event on its way to one endpoint; `…_at` are RFC 3339. `next_attempt_at` is null when it
    is due: then it waits for its endpoint."""

    id: str
    object: Literal["delivery"]
    event: str
    event_type: str
    webhook_endpoint: str
    status: DeliveryStatus
    attempts_made: int
    next_attempt_at: str | None
    created: int
    updated_at: str


class AttemptObject(TypedDict):
    """One attempt; `duration_ms` is null when the notifier stopped before the outcome."""

    number: int
    started_at: str
    duration_ms: int | None
    status_code: int | None
    response_start: str | None
    error: str | None


class DeliveryWithAttempts(DeliveryObject):
    """A delivery and every attempt at it."""

    attempts: list[AttemptObject]


class ReplayObject(TypedDict):
    """Events that are sent once more: of `events`, how many were sent again, for the first time, or
    passed over, because their delivery is open or not dead as was asked. `since`, `until` and
    `finished_at` are RFC 3339. A dry run has no id, and is `counted`."""

    id: str | None
    object: Literal["replay"]
    webhook_endpoint: str
    status: Literal["running", "finished", "canceled", "counted"]
    since: str
    until: str
    types: list[str]
    only_dead: bool
    dry_run: bool
    events: int
    sent_again: int
    sent_first: int
    passed_over: int
    created: int
    finished_at: str | None


class Deleted(TypedDict):
    """What is no longer there."""

    id: str
    object: str
    deleted: Literal[True]


class Step(TypedDict):
    """One step in the life of a payment; `at` is RFC 3339."""

    at: str
    step: str
    detail: dict[str, Any]


class Timeline(TypedDict):
    """Every step of one payment, in order of time."""

    payment_id: str
    timeline: list[Step]


class Health(TypedDict):
    """What a person wants to know first; `payments` is null while Postgres is away."""

    status: Literal["ok"]
    service: Literal["api"]
    phase: str
    uptime_seconds: float
    memory_bytes: int
    versions: dict[str, str]
    payments: dict[str, int] | None


class Ready(TypedDict):
    """Whether payments can be accepted, and what that depends on."""

    ready: bool
    phase: str
    checks: dict[str, bool]
    outbox_age_seconds: float | None


class ErrorDetail(TypedDict):
    """What went wrong and what to do; `param` names the parameter."""

    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "idempotency_error",
        "rate_limit_error",
        "card_error",
        "api_error",
    ]
    code: Code
    message: str
    param: NotRequired[str]
    request_id: str
    doc_url: NotRequired[str]


class ErrorAnswer(TypedDict):
    """The one error envelope."""

    error: ErrorDetail
