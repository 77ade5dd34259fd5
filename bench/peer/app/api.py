"""The HTTP API.

Its functions are plain ones, which FastAPI runs in threads: the database and the broker are waited
for there. Each takes a connection and gives it back by itself, so that a request never holds one
while it waits for a thread.
"""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from . import access
from .database import THREADS
from .domain import NewPayment, PaymentRow
from .models import PaymentStatus
from .tasks import settle


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Set how many requests are worked on at once. All share one interpreter lock: ten get more
    done than the default of forty."""
    current_default_thread_limiter().total_tokens = THREADS
    yield


app = FastAPI(title="Peer", lifespan=lifespan)
bearer = HTTPBearer()


class PaymentRequest(BaseModel):
    """What a merchant asks for."""

    user_id: str = Field(min_length=1, max_length=255)
    amount: Decimal = Field(gt=0, max_digits=18, decimal_places=2)
    currency: str = Field(pattern="^[A-Z]{3}$")
    description: str | None = Field(default=None, max_length=1000)


class PaymentObject(BaseModel):
    """A payment as merchants see it."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    user_id: str
    amount: Decimal
    currency: str
    status: PaymentStatus
    description: str | None
    created_at: datetime
    updated_at: datetime


class Accepted(BaseModel):
    """The answer to a request for a payment."""

    payment_id: str
    status: PaymentStatus
    payment: PaymentObject


class EndpointRequest(BaseModel):
    """Where a merchant wants to hear of what."""

    url: HttpUrl
    enabled_events: list[str] = Field(min_length=1)


class EndpointObject(BaseModel):
    """An endpoint; the secret is shown when it is made."""

    id: str
    secret: str


def current_account(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
) -> str:
    """The account whose key was sent."""
    account_id = access.find_account(hashlib.sha256(credentials.credentials.encode()).digest())
    if account_id is None:
        raise HTTPException(401, "The API key is wrong.", {"WWW-Authenticate": "Bearer"})
    return account_id


CurrentAccount = Annotated[str, Depends(current_account)]


@app.post("/api/v1/payments", status_code=202)
def create_payment(
    request: PaymentRequest,
    account_id: CurrentAccount,
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Accepted:
    """Accept a payment, once for each idempotency key."""
    new = NewPayment(
        account_id=account_id,
        idempotency_key=idempotency_key,
        user_id=request.user_id,
        amount=request.amount,
        currency=request.currency,
        description=request.description,
    )
    payment, replayed = access.create_payment(new)
    if not replayed:
        settle.delay(payment.id)
    elif not _is_same(new, payment):
        raise HTTPException(422, "The idempotency key was used before, with other parameters.")
    else:
        response.headers["Idempotent-Replayed"] = "true"
    return Accepted(
        payment_id=payment.id,
        status=payment.status,
        payment=PaymentObject.model_validate(payment),
    )


def _is_same(new: NewPayment, payment: PaymentRow) -> bool:
    return (new.user_id, new.amount, new.currency, new.description) == (
        payment.user_id,
        payment.amount,
        payment.currency,
        payment.description,
    )


@app.post("/v1/webhook_endpoints", status_code=201)
def create_webhook_endpoint(request: EndpointRequest, account_id: CurrentAccount) -> EndpointObject:
    """Tell an endpoint of events from now on."""
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    id_ = access.create_endpoint(account_id, str(request.url), request.enabled_events, secret)
    return EndpointObject(id=id_, secret=secret)


@app.get("/health")
def health() -> dict[str, str]:
    """Whether it answers."""
    return {"status": "ok"}
