"""The ledger as the merchant sees it: transfers and balances."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.api.store.pages import Span, fetch_page
from shared.db import Database


@dataclass(frozen=True, slots=True)
class Transfer:
    """One row of `transfers`, as the merchant's balance sees it. `amount` is minor units."""

    id: str
    kind: str
    source_id: str
    currency: str
    amount: int
    credit: str
    created_at: datetime


_TRANSFER: Final = "SELECT id, kind, source_id, currency, amount, credit, created_at FROM transfers"
KINDS: Final = ("payment", "refund")


async def list_transfers(
    database: Database,
    account_id: str,
    span: Span,
    *,
    kind: str | None,
    source_id: str | None,
    currency: str | None,
) -> list[Transfer]:
    """A part of an account's transfers, newest first."""
    kinds = [kind] if kind else list(KINDS) if source_id else None
    rows = await fetch_page(
        database,
        _TRANSFER,
        "txn",
        account_id,
        span,
        filters={"kind = ANY({})": kinds, "source_id = {}": source_id},
        along={"currency": currency},
    )
    return [Transfer(**row) for row in rows]


async def find_transfers_of(
    database: Database, account_id: str, kind: str, source_ids: Sequence[str]
) -> dict[str, Transfer]:
    """The transfers of `kind` that sources made, by the source's id."""
    if not source_ids:
        return {}
    rows = await database.fetch(
        f"{_TRANSFER} WHERE account_id = $1 AND kind = $2 AND source_id = ANY($3::text[])",
        account_id,
        kind,
        source_ids,
    )
    return {row["source_id"]: Transfer(**row) for row in rows}


async def find_transfer(database: Database, account_id: str, id_: str) -> Transfer | None:
    """One transfer of an account."""
    row = await database.fetchrow(f"{_TRANSFER} WHERE account_id = $1 AND id = $2", account_id, id_)
    return Transfer(**row) if row else None


async def find_balances(
    database: Database, account_id: str
) -> tuple[dict[str, int], dict[str, int]]:
    """Minor units by currency: what the ledger holds for the merchant, and what is under way:
    payments that will come, less refunds that will go."""
    rows = await database.fetch(
        """
        SELECT 'available' AS part, currency, credits_posted - debits_posted AS amount
          FROM ledger_accounts
         WHERE account_id = $1 AND kind = 'merchant_balance'
         UNION ALL
        SELECT 'pending', currency,
               sum(CASE object WHEN 'refund' THEN -amount ELSE amount END)
          FROM standings
         WHERE account_id = $1 AND object IN ('payment', 'refund')
           AND status IN ('pending', 'processing')
         GROUP BY currency
        HAVING sum(CASE object WHEN 'refund' THEN -amount ELSE amount END) <> 0
         ORDER BY part, currency
        """,
        account_id,
    )
    parts: dict[str, dict[str, int]] = {"available": {}, "pending": {}}
    for row in rows:
        parts[row["part"]][row["currency"]] = int(row["amount"])
    return parts["available"], parts["pending"]
