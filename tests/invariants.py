"""The invariants of the design, as queries that find what breaks them."""

from shared.db import Database

VIOLATIONS = {
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
    "a completed payment has one transfer of its amount, and others have none": """
        SELECT id FROM payments LEFT JOIN LATERAL (
            SELECT count(*) AS transfers, sum(transfers.amount) AS moved FROM transfers
             WHERE transfers.account_id = payments.account_id AND source_id = payments.id) AS t
            ON true
         WHERE CASE WHEN status = 'completed' THEN transfers <> 1 OR moved <> amount
                    ELSE transfers <> 0 END""",
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
        SELECT id FROM payments
         WHERE status IN ('completed', 'failed')
           AND (SELECT count(*) FROM events
                 WHERE events.account_id = payments.account_id AND object_id = payments.id
                   AND type = 'payment.' || status) <> 1
            OR (SELECT count(*) FROM events
                 WHERE events.account_id = payments.account_id AND object_id = payments.id
                   AND type IN ('payment.completed', 'payment.failed')) > 1""",
    "an event has one delivery for each endpoint that was subscribed": """
        SELECT events.id FROM events JOIN webhook_endpoints AS ep
            ON ep.account_id = events.account_id AND ep.created_at <= events.created_at
           AND (ep.deleted_at IS NULL OR ep.deleted_at > events.created_at)
           AND ep.enabled_events && ARRAY['*', type]
         WHERE (SELECT count(*) FROM deliveries
                 WHERE deliveries.account_id = events.account_id AND event_id = events.id
                   AND endpoint_id = ep.id) <> 1""",
    "attempts are numbered without gaps": """
        SELECT deliveries.id FROM deliveries LEFT JOIN LATERAL (
            SELECT count(*) AS n, coalesce(max(number), 0) AS last FROM delivery_attempts AS a
             WHERE a.account_id = deliveries.account_id AND a.delivery_id = deliveries.id) AS a
            ON true
         WHERE a.n <> a.last OR (lease_until IS NULL AND a.last <> attempts)""",
}


async def assert_invariants(database: Database) -> None:
    """Fail, naming the rule and the first rows that break it."""
    for rule, query in VIOLATIONS.items():
        broken = await database.fetch(query)
        assert not broken, f"{rule}: {[dict(row) for row in broken[:3]]} and {len(broken)} in all"


async def open_payments(database: Database) -> int:
    """How many payments have no outcome yet."""
    count: int = await database.fetchval(
        "SELECT count(*) FROM payments WHERE status IN ('pending', 'processing')"
    )
    return count
