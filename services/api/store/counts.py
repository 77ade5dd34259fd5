"""What is counted: payments and refunds by state, attempts at webhooks by outcome."""

from dataclasses import dataclass
from typing import Literal

from shared.db import Database


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are of one currency in one state, and their amount in minor units.

    Webhooks have no currency and no amount."""

    object: Literal["payment", "refund", "webhook"]
    currency: str
    status: str
    number: int
    amount: int


async def find_counts(database: Database, account_id: str | None) -> list[Count]:
    """The counts of one account, or of all together."""
    rows = await database.fetch(
        """
        SELECT object, currency, status, sum(number)::bigint AS number, sum(amount) AS amount
          FROM standings
         WHERE $1::text IS NULL OR account_id = $1
         GROUP BY object, currency, status
         ORDER BY object, currency, status
        """,
        account_id,
    )
    return [Count(**{**row, "amount": int(row["amount"])}) for row in rows]
