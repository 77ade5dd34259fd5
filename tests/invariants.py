"""The invariants of the design, as queries that find what breaks them."""

from shared.db import Database

MONEY = {
    "counts equal the payments they count": """
        SELECT * FROM (
            SELECT account_id, currency, status, count(*) AS payments, sum(amount) AS amount
              FROM payments GROUP BY 1, 2, 3) AS counted
          FULL JOIN (
            SELECT account_id, currency, status, sum(payments) AS payments, sum(amount) AS amount
              FROM payment_counts GROUP BY 1, 2, 3 HAVING sum(payments) <> 0) AS told
         USING (account_id, currency, status)
         WHERE counted.payments IS DISTINCT FROM told.payments
            OR counted.amount IS DISTINCT FROM told.amount""",
    "a completed payment has a transfer of its amount, and no other payment has one": """
        SELECT * FROM (SELECT account_id, id, amount FROM payments WHERE status = 'completed') AS p
          FULL JOIN (SELECT account_id, source_id AS id, amount AS moved FROM transfers
                      WHERE kind = 'payment') AS t USING (account_id, id)
         WHERE amount IS DISTINCT FROM moved""",
    "balances equal the sums of their transfers": """
        SELECT * FROM ledger_accounts FULL JOIN (
            SELECT account_id, currency, kind, sum(debited) AS debits, sum(credited) AS credits
              FROM (SELECT account_id, currency, debit AS kind, amount AS debited, 0 AS credited
                      FROM transfers
                     UNION ALL
                    SELECT account_id, currency, credit, 0, amount FROM transfers) AS entries
             GROUP BY 1, 2, 3) AS sums USING (account_id, currency, kind)
         WHERE debits_posted IS DISTINCT FROM debits OR credits_posted IS DISTINCT FROM credits""",
    "all debits equal all credits": """
        SELECT currency FROM ledger_accounts GROUP BY currency
        HAVING sum(debits_posted) <> sum(credits_posted)""",
    "a terminal payment has exactly one event that says so": """
        SELECT * FROM (SELECT account_id, id, 'payment.' || status AS type FROM payments
                        WHERE status IN ('completed', 'failed')) AS p
          FULL JOIN (SELECT account_id, object_id AS id, type FROM events
                      WHERE type IN ('payment.completed', 'payment.failed')) AS e
         USING (account_id, id, type)
         WHERE p.id IS NULL OR e.id IS NULL""",
}

DELIVERIES = {
    "an event has a delivery for each endpoint that was subscribed": """
        SELECT events.id FROM events JOIN webhook_endpoints AS ep
            ON ep.account_id = events.account_id AND ep.created_at <= events.created_at
           AND (ep.deleted_at IS NULL OR ep.deleted_at > events.created_at)
           AND ep.enabled_events && ARRAY['*', type]
          LEFT JOIN deliveries
            ON deliveries.account_id = events.account_id AND event_id = events.id
           AND endpoint_id = ep.id
         WHERE deliveries.id IS NULL""",
    "attempts are numbered without gaps": """
        SELECT * FROM deliveries LEFT JOIN (
            SELECT account_id, delivery_id AS id, count(*) AS n, max(number) AS last
              FROM delivery_attempts GROUP BY 1, 2) AS a USING (account_id, id)
         WHERE n <> last OR (lease_until IS NULL AND coalesce(last, 0) <> attempts)""",
}


async def assert_invariants(database: Database) -> None:
    """Fail, naming the rule and the first rows that break it."""
    await _assert_none(database, MONEY | DELIVERIES)


async def assert_deliveries(database: Database) -> None:
    """The same for deliveries alone, where events were made without payments."""
    await _assert_none(database, DELIVERIES)


async def _assert_none(database: Database, rules: dict[str, str]) -> None:
    async with database.transaction() as transaction:
        # Whole tables are compared: the opposite of what the services do.
        await transaction.execute("SET LOCAL enable_seqscan = on")
        found = {rule: await transaction.fetch(query) for rule, query in rules.items()}
    for rule, broken in found.items():
        assert not broken, f"{rule}: {[dict(row) for row in broken[:3]]} and {len(broken)} in all"


async def open_payments(database: Database) -> int:
    """How many payments have no outcome yet."""
    count: int = await database.fetchval(
        "SELECT count(*) FROM payments WHERE status IN ('pending', 'processing')"
    )
    return count
