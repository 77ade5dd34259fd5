"""What must hold in the peer's database when everything that was accepted has been delivered.

The peer's tables are its own (`bench/peer/app/models.py`).
"""

from typing import Final

from shared.db import Connection, Database

RULES: Final = {
    "every payment is completed": """
        SELECT id, 'is ' || status AS why FROM payments WHERE status <> 'completed'
    """,
    "a completed payment has one transfer of its amount; no other has one": """
        SELECT coalesce(p.id, t.payment_id) AS id,
               format('completed %s, moved %s', p.amount, t.moved) AS why
          FROM (SELECT * FROM payments WHERE status = 'completed') AS p
          FULL JOIN (SELECT payment_id, currency, sum(amount) AS moved
                       FROM transfers
                      WHERE debit = 'gateway_clearing' AND credit = 'merchant_balance'
                      GROUP BY 1, 2) AS t
            ON t.payment_id = p.id AND t.currency = p.currency
         WHERE p.amount IS DISTINCT FROM t.moved
    """,
    "a balance is the sum of its transfers": """
        SELECT concat_ws(' ', account_id, currency, kind) AS id,
               format('posted %s/%s, transferred %s/%s', b.debits, b.credits, s.debits, s.credits)
               AS why
          FROM balances AS b
          FULL JOIN (SELECT account_id, currency, kind, sum(debit) AS debits,
                            sum(credit) AS credits
                       FROM (SELECT account_id, currency, debit AS kind, amount AS debit,
                                    0 AS credit FROM transfers
                              UNION ALL
                             SELECT account_id, currency, credit, 0, amount FROM transfers) AS e
                      GROUP BY 1, 2, 3) AS s
         USING (account_id, currency, kind)
         WHERE b.debits IS DISTINCT FROM s.debits OR b.credits IS DISTINCT FROM s.credits
    """,
    "a payment has one event for each step": """
        SELECT p.id, format('told as %s', told) AS why
          FROM payments AS p
          LEFT JOIN (SELECT payment_id, string_agg(type, ' ' ORDER BY type) AS told
                       FROM events GROUP BY 1) AS e
            ON e.payment_id = p.id
         WHERE e.told IS DISTINCT FROM 'payment.completed payment.processing'
    """,
    "an event has one delivery for each endpoint that is subscribed, and it was delivered": """
        SELECT e.id, format('%s to %s', coalesce(d.status, 'nothing'), w.id) AS why
          FROM events AS e
          JOIN webhook_endpoints AS w
            ON w.account_id = e.account_id AND e.type = ANY(w.enabled_events)
          LEFT JOIN deliveries AS d
            ON d.event_id = e.id AND d.endpoint_id = w.id
         WHERE d.status IS DISTINCT FROM 'delivered'
    """,
    "attempts are numbered without gaps": """
        SELECT id::text AS id, format('%s attempts, %s recorded', attempts, n) AS why
          FROM deliveries
          LEFT JOIN (SELECT delivery_id AS id, count(*) AS n, max(number) AS last
                       FROM delivery_attempts GROUP BY 1) AS recorded
         USING (id)
         WHERE n IS DISTINCT FROM attempts OR last IS DISTINCT FROM attempts
    """,
}
"""What selects what breaks each rule: `id`, and `why`."""


async def prepare_to_read_all(connection: Connection) -> None:
    """Let this transaction read whole tables, from one snapshot."""
    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await connection.execute("SET LOCAL enable_seqscan = on")
    await connection.execute("SET LOCAL statement_timeout = 0")


async def find_broken(connection: Connection, rule: str, limit: int) -> list[tuple[str, str]]:
    """(id, why) of the first `limit` things that break one of the rules."""
    rows = await connection.fetch(
        f"SELECT * FROM ({RULES[rule]}) AS broken ORDER BY id LIMIT $1",  # noqa: S608 - constants
        limit,
    )
    return [(row["id"], row["why"]) for row in rows]


async def count_payments(database: Database) -> int:
    """How many payments there are."""
    count: int = await database.fetchval("SELECT count(*) FROM payments")
    return count
