"""/balance and /balance_transactions: the ledger as the merchant sees it."""

from typing import Any

from aiohttp import web

from services.api import store
from services.api.context import CONTEXT, answer, page, path_id, read_query, span_of
from services.api.errors import not_found
from services.api.gate import CALLER
from services.api.models import ListBalanceTransactions

_TYPES = {"payment": "charge"}
"""What Stripe calls the kinds of our transfers."""


def balance_transaction_object(transfer: store.Transfer) -> dict[str, Any]:
    """One transfer to the merchant's balance, or, with a negative amount, from it."""
    amount = transfer.amount if transfer.credit == "merchant_balance" else -transfer.amount
    created = int(transfer.created_at.timestamp())
    type_ = _TYPES[transfer.kind]
    return {
        "id": transfer.id,
        "object": "balance_transaction",
        "amount": amount,
        "fee": 0,
        "fee_details": [],
        "net": amount,
        "currency": transfer.currency.lower(),
        "created": created,
        "available_on": created,
        "description": None,
        "reporting_category": type_,
        "source": transfer.source_id,
        "status": "available",
        "type": type_,
    }


async def show(request: web.Request) -> web.Response:
    """What is the merchant's, from the ledger, and what is under way."""
    available, pending = await store.find_balances(
        request.app[CONTEXT].database, request[CALLER].account_id
    )
    return answer(
        {
            "object": "balance",
            "livemode": False,
            "available": _amounts(available, always=available.keys() | pending.keys()),
            "pending": _amounts(pending, always=available.keys() | pending.keys()),
        }
    )


async def retrieve_transaction(request: web.Request) -> web.Response:
    """One balance transaction."""
    id_ = path_id(request)
    found = await store.find_transfer(
        request.app[CONTEXT].database, request[CALLER].account_id, id_
    )
    if found is None:
        raise not_found("balance transaction", id_)
    return answer(balance_transaction_object(found))


async def list_transactions(request: web.Request) -> web.Response:
    """Balance transactions, newest first."""
    query = read_query(request, ListBalanceTransactions)
    found = await store.list_transfers(
        request.app[CONTEXT].database,
        request[CALLER].account_id,
        span_of(query),
        source_id=query.source,
        currency=query.currency,
    )
    return page("/v1/balance_transactions", query, found, balance_transaction_object)


def _amounts(by_currency: dict[str, int], always: set[str]) -> list[dict[str, Any]]:
    return [
        {"amount": by_currency.get(currency, 0), "currency": currency.lower()}
        for currency in sorted(always)
    ]


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes under `prefix`."""
    return [
        web.get(f"{prefix}/balance", show),
        web.get(f"{prefix}/balance_transactions", list_transactions),
        web.get(f"{prefix}/balance_transactions/{{id}}", retrieve_transaction),
    ]
