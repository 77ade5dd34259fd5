"""What a measurement reads from the database, and the accounts it puts there."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.db import Database
from shared.schema import DEFAULT_ACCOUNT


@dataclass(frozen=True, slots=True)
class Account:
    """An account with one key, of which the hash alone is stored."""

    id: str
    key_id: str
    prefix: str
    key_hash: bytes


async def insert_accounts(database: Database, accounts: Sequence[Account]) -> None:
    """New accounts, each with a secret key."""
    await database.execute(
        """
        WITH made AS (
            INSERT INTO accounts (id, name) SELECT id, id FROM unnest($1::text[]) AS id
        )
        INSERT INTO api_keys (account_id, id, prefix, key_hash, role)
        SELECT account_id, id, prefix, key_hash, 'secret'
          FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
               AS given (account_id, id, prefix, key_hash)
        """,
        [account.id for account in accounts],
        [account.key_id for account in accounts],
        [account.prefix for account in accounts],
        [account.key_hash for account in accounts],
    )


async def settled_at(database: Database, events: Sequence[str]) -> dict[str, float]:
    """Unix seconds at which events of the default account were written, by id."""
    rows = await database.fetch(
        """
        SELECT id, extract(epoch FROM created_at)::float8 AS at
          FROM events
         WHERE account_id = $1 AND id = ANY($2::text[])
        """,
        DEFAULT_ACCOUNT,
        events,
    )
    return {row["id"]: row["at"] for row in rows}


async def fill(database: Database, first: int, number: int) -> None:
    """Payments that were completed and told of, as if they had gone through: `number` of them from
    the `first` on, spread over the accounts that have an endpoint.

    Everything is there that a payment leaves behind, so that every rule of `verify` holds.
    """
    await database.execute(
        """
        WITH tenants AS MATERIALIZED (
            SELECT account_id, id AS endpoint_id,
                   row_number() OVER (ORDER BY account_id) - 1 AS place, count(*) OVER () AS of
              FROM webhook_endpoints
        ), made AS MATERIALIZED (
            SELECT account_id, endpoint_id, n, 1000 + n % 9000 AS amount,
                   lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') AS at,
                   lpad(to_hex(n), 20, '0') AS tail
              FROM generate_series($1::bigint, $1 + $2 - 1) AS n
              JOIN tenants ON place = n % of
        ), paid AS (
            INSERT INTO payments (account_id, id, amount, currency, customer, description, status,
                                  gateway, gateway_reference, idempotency_scope, idempotency_key,
                                  request_fingerprint, request_id, processed_at)
            SELECT account_id, 'pay_' || at || tail, amount, 'THB', 'user_' || n % 5000,
                   'Order ' || n, 'completed', 'sandbox', 'sandbox_' || tail, 'payments',
                   'filled-' || n, sha256(tail::bytea), 'req_' || at || tail, now()
              FROM made
        ), moved AS (
            INSERT INTO transfers (account_id, id, debit, credit, currency, amount, kind, source_id)
            SELECT account_id, 'txn_' || at || tail, 'gateway_clearing', 'merchant_balance', 'THB',
                   amount, 'payment', 'pay_' || at || tail
              FROM made
        ), posted AS (
            INSERT INTO ledger_accounts (account_id, currency, kind, debits_posted, credits_posted)
            SELECT account_id, 'THB', kind,
                   sum(CASE kind WHEN 'gateway_clearing' THEN amount ELSE 0 END),
                   sum(CASE kind WHEN 'merchant_balance' THEN amount ELSE 0 END)
              FROM made, unnest(ARRAY['gateway_clearing', 'merchant_balance']) AS kind
             GROUP BY account_id, kind
                ON CONFLICT (account_id, currency, kind) DO UPDATE
               SET debits_posted = ledger_accounts.debits_posted + excluded.debits_posted,
                   credits_posted = ledger_accounts.credits_posted + excluded.credits_posted
        ), counted AS (
            INSERT INTO arrivals (account_id, object, currency, status, number, amount)
            SELECT account_id, 'payment', 'THB', status, count(*), sum(amount)
              FROM made, unnest(ARRAY['pending', 'processing', 'completed']) AS status
             GROUP BY account_id, status
        ), numbered AS (
            INSERT INTO event_sequences (account_id, last)
            SELECT account_id, 2 * count(*) FROM made GROUP BY account_id
                ON CONFLICT (account_id) DO UPDATE
               SET last = event_sequences.last + excluded.last
            RETURNING account_id, last
        ), happened AS MATERIALIZED (
            SELECT account_id, endpoint_id, at, tail, type,
                   'evt_' || at || lpad(to_hex(CASE type WHEN 'processing' THEN 2 * n
                                                       ELSE 2 * n + 1 END), 20, '0') AS id,
                   last + 1 - row_number() OVER (PARTITION BY account_id
                                                 ORDER BY n DESC, type) AS sequence
              FROM made JOIN numbered USING (account_id),
                   unnest(ARRAY['processing', 'completed']) AS type
        ), told AS (
            INSERT INTO events (account_id, id, type, object_id, sequence, body)
            SELECT account_id, id, 'payment.' || type, 'pay_' || at || tail, sequence,
                   '{"id":"' || id || '","object":"event","data":"' || repeat('x', 650)
                   || '","sequence":' || sequence || '}'
              FROM happened
        ), called_for AS MATERIALIZED (
            SELECT account_id, endpoint_id, id AS event_id,
                   'dlv_' || substr(id, 5, 16) || substr(md5(id || endpoint_id), 1, 16)
                   AS id
              FROM happened
             WHERE type = 'completed'
        ), delivered AS (
            INSERT INTO deliveries (account_id, id, event_id, endpoint_id, status, attempts)
            SELECT account_id, id, event_id, endpoint_id, 'delivered', 1 FROM called_for
        )
        INSERT INTO delivery_attempts (account_id, delivery_id, number, started_at, duration_ms,
                                       status_code, response_start)
        SELECT account_id, id, 1, now(), 3, 200, '' FROM called_for
        """,
        first,
        number,
    )


async def tidy(database: Database) -> None:
    """What autovacuum would have done while the tables grew."""
    for table in ("payments", "transfers", "events", "deliveries", "delivery_attempts", "counts"):
        await database.execute(f"VACUUM (ANALYZE) {table}")
