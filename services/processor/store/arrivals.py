"""Arrivals in each state: appended by whoever moves something, folded in the background."""

from dataclasses import astuple, dataclass

from shared.db import Database


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the arrivals. As made, before all of them."""

    account_id: str = ""
    object: str = ""
    currency: str = ""
    status: str = ""


async def fold_arrivals(
    database: Database, *, start: Place, at_most: int, more_than: int
) -> Place | None:
    """Look at the next `at_most` from `start` on, and replace those of one account, currency and
    state by their sum where they are more than `more_than`, which is less. Returns where to go on,
    None when those were the last."""
    row = await database.fetchrow(
        """
        WITH piece AS MATERIALIZED (
            SELECT ctid AS place, account_id, object, currency, status
              FROM arrivals
             WHERE (account_id, object, currency, status) >= ($1, $2, $3, $4)
             ORDER BY account_id, object, currency, status
             LIMIT $5
        ), grown AS (
            SELECT account_id, object, currency, status
              FROM piece
             GROUP BY account_id, object, currency, status
            HAVING count(*) > $6
        ), taken AS (
            DELETE FROM arrivals
             WHERE ctid = ANY(ARRAY(SELECT place
                                      FROM piece
                                      JOIN grown USING (account_id, object, currency, status)))
            RETURNING *
        ), folded AS (
            INSERT INTO arrivals (account_id, object, currency, status, number, amount)
            SELECT account_id, object, currency, status, sum(number), sum(amount)
              FROM taken
             GROUP BY account_id, object, currency, status
        )
        SELECT account_id, object, currency, status
          FROM piece
         WHERE (SELECT count(*) FROM piece) = $5
         ORDER BY account_id DESC, object DESC, currency DESC, status DESC
         LIMIT 1
        """,
        *astuple(start),
        at_most,
        more_than,
    )
    return None if row is None else Place(**row)
