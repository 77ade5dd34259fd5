"""What must hold of all accounts at once."""

from dataclasses import dataclass
from typing import Final

from shared.db import Connection


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: how many things it is about, and those which break it.

    `broken` selects `id`, a text that finds the thing, and `why`. Both may use `$1`, the seconds
    that work may take before its absence counts.
    """

    invariant: int
    rule: str
    counted: str
    broken: str


@dataclass(frozen=True, slots=True)
class Age:
    """One kind of work that must not wait: `oldest` selects its age in seconds, and `id`."""

    rule: str
    limit: float
    oldest: str


def _as_counted(table: str, object_: str) -> Check:
    """The rule that counts, kept as arrivals, come to what the rows of `table` are."""
    return Check(
        1,
        f"{table} = pending + processing + completed + failed, as counted",
        f"SELECT count(*) FROM {table} WHERE $1::float8 IS NOT NULL",  # noqa: S608 - constants
        f"""
        SELECT concat_ws(' ', account_id, currency, status) AS id,
               format('%s rows of %s are counted as %s of %s',
                      actual.n, actual.amount, told.n, told.amount) AS why
          FROM (SELECT account_id, currency, status, count(*) AS n, sum(amount) AS amount
                  FROM {table} GROUP BY 1, 2, 3) AS actual
          FULL JOIN (SELECT account_id, currency, status, sum(number) AS n, sum(amount) AS amount
                       FROM standings WHERE object = '{object_}' GROUP BY 1, 2, 3
                     HAVING sum(number) <> 0 OR sum(amount) <> 0) AS told
         USING (account_id, currency, status)
         WHERE $1::float8 IS NOT NULL
           AND (actual.n IS DISTINCT FROM told.n OR actual.amount IS DISTINCT FROM told.amount)
        """,  # noqa: S608 - constants
    )


def _moved_once(invariant: int, table: str, kind: str) -> Check:
    """The rule that what is completed in `table` has moved its money once, and nothing else has; a
    payment to the merchant's balance, a refund from it."""
    side = "credit" if kind == "payment" else "debit"
    return Check(
        invariant,
        f"a completed {kind} has one transfer of its amount; no other has one",
        f"SELECT count(*) FROM transfers"  # noqa: S608 - constants
        f" WHERE kind = '{kind}' AND $1::float8 IS NOT NULL",
        f"""
        SELECT id, format('completed %s, moved %s', amount, moved) AS why
          FROM (SELECT account_id, id, currency, amount FROM {table}
                 WHERE status = 'completed') AS done
          FULL JOIN (SELECT account_id, source_id AS id, currency, sum(amount) AS moved
                       FROM transfers WHERE kind = '{kind}' AND {side} = 'merchant_balance'
                      GROUP BY 1, 2, 3) AS sent
         USING (account_id, id, currency)
         WHERE $1::float8 IS NOT NULL AND amount IS DISTINCT FROM moved
        """,  # noqa: S608 - constants
    )


_KEPT_SINCE: Final = """coalesce((SELECT mark + interval '5 minutes' FROM sweep_marks
                                    WHERE name = 'pruned events'), '-infinity')"""
"""When the oldest event happened that retention has certainly kept; rows are dated by the clocks of
several machines."""

CHECKS: Final = (
    _as_counted("payments", "payment"),
    _as_counted("refunds", "refund"),
    _moved_once(2, "payments", "payment"),
    Check(
        3,
        "refunds that did not fail add up to what is refunded of their payment",
        "SELECT count(*) FROM refunds WHERE $1::float8 IS NOT NULL",
        """
        SELECT id, format('refunded %s, refunds of %s', amount_refunded, refunds) AS why
          FROM (SELECT account_id, id, currency, amount_refunded FROM payments
                 WHERE amount_refunded > 0) AS reserved
          FULL JOIN (SELECT account_id, payment_id AS id, currency, sum(amount) AS refunds
                       FROM refunds WHERE status <> 'failed' GROUP BY 1, 2, 3) AS made
         USING (account_id, id, currency)
         WHERE $1::float8 IS NOT NULL AND amount_refunded IS DISTINCT FROM refunds
        """,
    ),
    _moved_once(3, "refunds", "refund"),
    Check(
        3,
        "no more is refunded than was paid",
        "SELECT count(*) FROM payments WHERE amount_refunded > 0 AND $1::float8 IS NOT NULL",
        """
        SELECT id, format('refunded %s of %s', amount_refunded, amount) AS why FROM payments
         WHERE $1::float8 IS NOT NULL
           AND amount_refunded > CASE status WHEN 'completed' THEN amount ELSE 0 END
        """,
    ),
    Check(
        4,
        "a balance is the sum of its transfers",
        "SELECT count(*) FROM ledger_accounts WHERE $1::float8 IS NOT NULL",
        """
        SELECT concat_ws(' ', account_id, currency, kind) AS id,
               format('posted %s/%s, transferred %s/%s',
                      debits_posted, credits_posted, debits, credits) AS why
          FROM ledger_accounts
          FULL JOIN (SELECT account_id, currency, kind, sum(debited) AS debits,
                            sum(credited) AS credits
                       FROM (SELECT account_id, currency, debit AS kind, amount AS debited,
                                    0 AS credited FROM transfers
                              UNION ALL
                             SELECT account_id, currency, credit, 0, amount FROM transfers) AS e
                      GROUP BY 1, 2, 3) AS sums
         USING (account_id, currency, kind)
         WHERE $1::float8 IS NOT NULL
           AND (debits_posted IS DISTINCT FROM debits OR credits_posted IS DISTINCT FROM credits)
        """,
    ),
    Check(
        4,
        "in each currency, all debits = all credits",
        "SELECT count(DISTINCT currency) FROM ledger_accounts WHERE $1::float8 IS NOT NULL",
        """
        SELECT currency AS id, format('debits %s, credits %s', sum(debits_posted),
                                      sum(credits_posted)) AS why
          FROM ledger_accounts
         WHERE $1::float8 IS NOT NULL
         GROUP BY currency
        HAVING sum(debits_posted) <> sum(credits_posted)
        """,
    ),
    Check(
        5,
        "an outcome has exactly one event that says so",
        """
        SELECT count(*) FROM events
         WHERE type = ANY(ARRAY['payment.completed', 'payment.failed', 'refund.completed',
                                'refund.failed'])
           AND $1::float8 IS NOT NULL
        """,
        f"""
        SELECT id, format('%s is told as %s', outcome.type, told.type) AS why
          FROM (SELECT account_id, id, 'payment.' || status AS type, processed_at AS at
                  FROM payments
                 WHERE status IN ('completed', 'failed')
                 UNION ALL
                SELECT account_id, id, 'refund.' || status, processed_at FROM refunds
                 WHERE status IN ('completed', 'failed')) AS outcome
          FULL JOIN (SELECT account_id, object_id AS id, string_agg(type, ' ') AS type FROM events
                      WHERE type = ANY(ARRAY['payment.completed', 'payment.failed',
                                             'refund.completed', 'refund.failed'])
                      GROUP BY 1, 2) AS told
         USING (account_id, id)
         WHERE $1::float8 IS NOT NULL AND outcome.type IS DISTINCT FROM told.type
           AND (told.type IS NOT NULL OR at >= {_KEPT_SINCE})
        """,  # noqa: S608 - constants
    ),
    Check(
        5,
        "an event has a delivery for each endpoint that was subscribed",
        "SELECT count(*) FROM deliveries WHERE $1::float8 IS NOT NULL",
        """
        SELECT events.id, format('nothing to %s', subscription.endpoint_id) AS why
          FROM events
          JOIN webhook_subscriptions AS subscription
            ON subscription.account_id = events.account_id
           AND subscription.since <= events.created_at
           AND (subscription.until IS NULL OR subscription.until > events.created_at)
           AND subscription.enabled_events && ARRAY['*', type]
           AND type <> 'webhook_endpoint.test'
           AND subscription.endpoint_id IS DISTINCT FROM events.endpoint_id
          LEFT JOIN deliveries
            ON deliveries.account_id = events.account_id AND deliveries.event_id = events.id
           AND deliveries.endpoint_id = subscription.endpoint_id
         WHERE deliveries.id IS NULL
           AND events.created_at <= now() - make_interval(secs => $1)
        """,
    ),
    Check(
        5,
        "an account's events are numbered without gaps",
        "SELECT count(*) FROM events WHERE sequence IS NOT NULL AND $1::float8 IS NOT NULL",
        f"""
        SELECT account_id AS id, format('%s events up to number %s of %s', n, highest, last) AS why
          FROM (SELECT account_id, count(*) AS n, lowest, max(sequence) AS highest
                  FROM events
                  JOIN (SELECT account_id, min(sequence) AS lowest
                          FROM events WHERE created_at >= {_KEPT_SINCE} GROUP BY 1) AS kept
                 USING (account_id)
                 WHERE sequence >= lowest  -- numbers are not in the order of created_at
                 GROUP BY account_id, lowest) AS numbered
          FULL JOIN event_sequences USING (account_id)
         WHERE $1::float8 IS NOT NULL
           AND (n IS NOT NULL OR last IS NULL)
           AND (n <> highest + 1 - lowest OR highest IS DISTINCT FROM last)
        """,  # noqa: S608 - constants
    ),
    Check(
        5,
        "attempts are numbered without gaps",
        "SELECT count(*) FROM delivery_attempts WHERE $1::float8 IS NOT NULL",
        """
        SELECT id, format('%s attempts, %s recorded, the last is %s', attempts, n, last) AS why
          FROM deliveries
          LEFT JOIN (SELECT account_id, delivery_id AS id, count(*) AS n, max(number) AS last
                       FROM delivery_attempts GROUP BY 1, 2) AS recorded
         USING (account_id, id)
         WHERE $1::float8 IS NOT NULL
           AND (n <> last OR (lease_until IS NULL AND coalesce(last, 0) <> attempts))
        """,
    ),
)

AGES: Final = (
    Age(
        "oldest payment without an outcome",
        300.0,
        """
        SELECT extract(epoch FROM now() - created_at)::float8 AS age, id FROM payments
         WHERE status IN ('pending', 'processing') AND unknown_since IS NULL
         ORDER BY created_at LIMIT 1
        """,
    ),
    Age(
        "oldest refund without an outcome",
        300.0,
        """
        SELECT extract(epoch FROM now() - created_at)::float8 AS age, id FROM refunds
         WHERE status IN ('pending', 'processing') AND unknown_since IS NULL
         ORDER BY created_at LIMIT 1
        """,
    ),
    Age(
        "oldest unknown outcome",
        86_400.0,
        """
        SELECT extract(epoch FROM now() - unknown_since)::float8 AS age, id
          FROM (SELECT id, unknown_since FROM payments WHERE unknown_since IS NOT NULL
                 UNION ALL
                SELECT id, unknown_since FROM refunds WHERE unknown_since IS NOT NULL) AS unknown
         ORDER BY unknown_since LIMIT 1
        """,
    ),
    Age(
        "oldest unpublished message",
        60.0,
        """
        SELECT extract(epoch FROM now() - created_at)::float8 AS age, id::text AS id FROM outbox
         ORDER BY id LIMIT 1
        """,
    ),
    # A backlog may be long, where an endpoint is slow, or fails and is tried now and then; but
    # somebody must be working on it.
    Age(
        "longest overdue delivery to an endpoint that is sent nothing",
        600.0,
        """
        SELECT extract(epoch FROM now() - greatest(due, worked_on))::float8 AS age, id
          FROM (SELECT account_id, endpoint_id, min(id) AS id,
                       min(coalesce(next_attempt_at, created_at)) AS due
                  FROM deliveries
                 WHERE status IN ('pending', 'retrying')
                   AND (lease_until IS NULL OR lease_until < now())
                   AND coalesce(next_attempt_at, created_at) < now()
                 GROUP BY 1, 2) AS open,
               LATERAL (SELECT max(started_at) AS worked_on
                          FROM deliveries
                          JOIN delivery_attempts
                            ON delivery_attempts.account_id = deliveries.account_id
                           AND delivery_attempts.delivery_id = deliveries.id
                         WHERE deliveries.account_id = open.account_id
                           AND deliveries.endpoint_id = open.endpoint_id) AS attempts
         ORDER BY 1 DESC LIMIT 1
        """,
    ),
)


async def prepare_to_compare(connection: Connection) -> None:
    """Let this transaction read whole tables, from one snapshot: what services must not do."""
    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await connection.execute("SET LOCAL enable_seqscan = on")
    await connection.execute("SET LOCAL statement_timeout = 0")
    await connection.execute("SET LOCAL work_mem = '128MB'")


async def count_checked(connection: Connection, check: Check, grace: float) -> int:
    """How many things a check is about."""
    count: int = await connection.fetchval(check.counted, grace)
    return count


async def find_broken(
    connection: Connection, check: Check, grace: float, limit: int
) -> tuple[int, list[tuple[str, str]]]:
    """How many things break a rule, and (id, why) of the first `limit`."""
    rows = await connection.fetch(
        f"""
        WITH broken AS MATERIALIZED ({check.broken})
        SELECT count(*) OVER () AS n, id, why FROM broken ORDER BY id LIMIT $2
        """,  # noqa: S608 - checks are constants
        grace,
        limit,
    )
    return (rows[0]["n"] if rows else 0), [(row["id"], row["why"]) for row in rows]


async def find_oldest(connection: Connection, age: Age) -> tuple[float, str | None]:
    """The age in seconds of the oldest, and its id; (0, None) when there is none."""
    row = await connection.fetchrow(age.oldest)
    return (row["age"], row["id"]) if row else (0.0, None)
