"""/balance and /balance_transactions: the ledger as the merchant sees it."""

from typing import Final

from aiohttp import web

from services.api.context import CONTEXT, answer, page, path_id, read_query, span_of
from services.api.errors import not_found
from services.api.gate import CALLER
from services.api.models import ListBalanceTransactions, Retrieve
from services.api.objects import BalanceObject, BalanceTransactionObject, Listing, Money
from services.api.operation import Operation
from services.api.store.ledger import Transfer, find_balances, find_transfer, list_transfers

_TYPES: Final = {"payment": "charge", "refund": "refund"}
"""What Stripe calls the kinds of our transfers."""
_KINDS: Final = {type_: kind for kind, type_ in _TYPES.items()}


def balance_transaction_object(transfer: Transfer) -> BalanceTransactionObject:
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
    """What is the merchant's, from the ledger, and what is under way: payments less refunds."""
    read_query(request, Retrieve)
    available, pending = await find_balances(
        request.app[CONTEXT].database, request[CALLER].account_id
    )
    currencies = available.keys() | pending.keys()
    balance: BalanceObject = {
        "object": "balance",
        "livemode": False,
        "available": _amounts(available, currencies),
        "pending": _amounts(pending, currencies),
    }
    return answer(balance)


async def retrieve_transaction(request: web.Request) -> web.Response:
    """One balance transaction."""
    read_query(request, Retrieve)
    id_ = path_id(request)
    found = await find_transfer(request.app[CONTEXT].database, request[CALLER].account_id, id_)
    if found is None:
        raise not_found("balance transaction", id_)
    return answer(balance_transaction_object(found))


async def list_transactions(request: web.Request) -> web.Response:
    """Balance transactions, newest first."""
    query = read_query(request, ListBalanceTransactions)
    found = await list_transfers(
        request.app[CONTEXT].database,
        request[CALLER].account_id,
        span_of(query),
        kind=_KINDS[query.type] if query.type else None,
        source_id=query.source,
        currency=query.currency,
    )
    return page("/v1/balance_transactions", query, found, balance_transaction_object)


def _amounts(by_currency: dict[str, int], currencies: set[str]) -> list[Money]:
    return [
        {"amount": by_currency.get(currency, 0), "currency": currency.lower()}
        for currency in sorted(currencies)
    ]


OPERATIONS: Final = (
    Operation("GET", "/balance", show, BalanceObject, query=Retrieve),
    Operation(
        "GET",
        "/balance_transactions",
        list_transactions,
        Listing[BalanceTransactionObject],
        query=ListBalanceTransactions,
    ),
    Operation(
        "GET",
        "/balance_transactions/{id}",
        retrieve_transaction,
        BalanceTransactionObject,
        query=Retrieve,
    ),
)
