"""From a valid request to an accepted payment: what both faces of a payment share."""

from aiohttp import web

from services.api.accept import Accepted, IdempotencyMismatch, fingerprint
from services.api.context import CONTEXT, idempotency_key
from services.api.errors import key_reused
from services.api.gate import CALLER, REQUEST_ID
from services.api.models import metadata_text
from services.api.store.payments import NewPayment
from shared.ids import new_id


async def accept_payment(
    request: web.Request,
    *,
    scope: str,
    amount: int,
    currency: str,
    customer: str | None,
    description: str | None,
    metadata: dict[str, str],
) -> Accepted:
    """Commit a payment of `amount` minor units, or find what the request's key made before.

    `scope` is the route: keys of two routes do not meet. Raises a Problem for a key that was used
    with other parameters.
    """
    key = idempotency_key(request)
    text = metadata_text(metadata)
    new = NewPayment(
        account_id=request[CALLER].account_id,
        id=new_id("pay"),
        amount=amount,
        currency=currency,
        customer=customer,
        description=description,
        metadata=text,
        idempotency_scope=scope if key else None,
        idempotency_key=key,
        request_fingerprint=fingerprint(
            amount=amount,
            currency=currency,
            customer=customer,
            description=description,
            metadata=text,
        )
        if key
        else None,
        request_id=request[REQUEST_ID],
    )
    try:
        return await request.app[CONTEXT].acceptor.accept(new)
    except IdempotencyMismatch:
        raise key_reused() from None


def replayed_header(accepted: Accepted) -> dict[str, str]:
    """The header that says that an earlier request made this."""
    return {"Idempotent-Replayed": "true"} if accepted.replayed else {}
