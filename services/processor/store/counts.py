"""Counts by state: kept as changes, folded in the background."""

from shared.db import Database


async def fold_counts(database: Database, *, more_than: int) -> None:
    """Replace the changes of every count that has more than `more_than` of them by their sum."""
    await database.execute(
        """
        WITH grown AS (
            SELECT account_id, object, currency, status
              FROM counts
             GROUP BY account_id, object, currency, status
            HAVING count(*) > $1
        ), taken AS (
            DELETE FROM counts
             USING grown
             WHERE counts.account_id = grown.account_id
               AND counts.object = grown.object
               AND counts.currency = grown.currency
               AND counts.status = grown.status
            RETURNING counts.*
        )
        INSERT INTO counts (account_id, object, currency, status, number, amount)
        SELECT account_id, object, currency, status, sum(number), sum(amount)
          FROM taken
         GROUP BY account_id, object, currency, status
        """,
        more_than,
    )
