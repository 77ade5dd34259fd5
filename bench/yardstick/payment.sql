-- One payment from start to end, row by row: the statements of Florin's steps with one row each, and a
-- commit after each step. What a well-made system without batches asks of the same database.
\set n random(1, 4611686018427387904)
\set amount random(100, 9999)
\set place random(0, 99)
SELECT lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
       || lpad(to_hex(:n::bigint), 20, '0') AS tail,
       'acct_bench' || lpad(:place::text, 6, '0') AS account \gset

-- Accept.
WITH accepted AS (
    INSERT INTO payments (account_id, id, amount, currency, customer, description, idempotency_scope,
                          idempotency_key, request_fingerprint, request_id)
    VALUES (:account::text, 'pay_' || :tail::text, :amount::bigint, 'THB', 'user_1', 'Order',
            'payments', :tail::text, sha256('order'), 'req_' || :tail::text)
), counted AS (
    INSERT INTO counts (account_id, object, currency, status, number, amount)
    VALUES (:account::text, 'payment', 'THB', 'pending', 1, :amount::bigint)
)
INSERT INTO outbox (exchange, routing_key, body) VALUES ('commands', 'payments', repeat('x', 150))
RETURNING id AS message \gset
DELETE FROM outbox WHERE id = :message::bigint;

-- Begin.
WITH begun AS (
    UPDATE payments SET status = 'processing', updated_at = now()
     WHERE account_id = :account::text AND id = 'pay_' || :tail::text AND status = 'pending'
), counted AS (
    INSERT INTO counts (account_id, object, currency, status, number, amount)
    VALUES (:account::text, 'payment', 'THB', 'pending', -1, -:amount::bigint),
           (:account::text, 'payment', 'THB', 'processing', 1, :amount::bigint)
), numbered AS (
    INSERT INTO event_sequences (account_id, last) VALUES (:account::text, 1)
        ON CONFLICT (account_id) DO UPDATE SET last = event_sequences.last + 1
    RETURNING last
), told AS (
    INSERT INTO events (account_id, id, type, object_id, sequence, body)
    SELECT :account::text, 'evt_' || left(:tail::text, 31) || 'a', 'payment.processing',
           'pay_' || :tail::text, last, repeat('x', 700)
      FROM numbered
)
INSERT INTO outbox (exchange, routing_key, body)
VALUES ('events', 'payment.processing', repeat('x', 150))
RETURNING id AS message \gset
DELETE FROM outbox WHERE id = :message::bigint;

-- Settle.
WITH settled AS (
    UPDATE payments
       SET status = 'completed', gateway = 'sandbox', gateway_reference = :tail::text,
           gateway_calls = gateway_calls || '[{"asked":"charge"}]', updated_at = now(),
           processed_at = now()
     WHERE account_id = :account::text AND id = 'pay_' || :tail::text AND status = 'processing'
), moved AS (
    INSERT INTO transfers (account_id, id, debit, credit, currency, amount, kind, source_id)
    VALUES (:account::text, 'txn_' || :tail::text, 'gateway_clearing', 'merchant_balance', 'THB',
            :amount::bigint, 'payment', 'pay_' || :tail::text)
), posted AS (
    INSERT INTO ledger_accounts (account_id, currency, kind, debits_posted, credits_posted)
    VALUES (:account::text, 'THB', 'gateway_clearing', :amount::bigint, 0),
           (:account::text, 'THB', 'merchant_balance', 0, :amount::bigint)
        ON CONFLICT (account_id, currency, kind) DO UPDATE
       SET debits_posted = ledger_accounts.debits_posted + excluded.debits_posted,
           credits_posted = ledger_accounts.credits_posted + excluded.credits_posted
), counted AS (
    INSERT INTO counts (account_id, object, currency, status, number, amount)
    VALUES (:account::text, 'payment', 'THB', 'processing', -1, -:amount::bigint),
           (:account::text, 'payment', 'THB', 'completed', 1, :amount::bigint)
), numbered AS (
    INSERT INTO event_sequences (account_id, last) VALUES (:account::text, 1)
        ON CONFLICT (account_id) DO UPDATE SET last = event_sequences.last + 1
    RETURNING last
), told AS (
    INSERT INTO events (account_id, id, type, object_id, sequence, body)
    SELECT :account::text, 'evt_' || left(:tail::text, 31) || 'b', 'payment.completed',
           'pay_' || :tail::text, last, repeat('x', 700)
      FROM numbered
)
INSERT INTO outbox (exchange, routing_key, body)
VALUES ('events', 'payment.completed', repeat('x', 150))
RETURNING id AS message \gset
DELETE FROM outbox WHERE id = :message::bigint;

-- Deliver.
INSERT INTO deliveries (account_id, id, event_id, endpoint_id, attempts, lease_until)
SELECT account_id, 'dlv_' || left(:tail::text, 16) || substr(md5('evt_' || left(:tail::text, 31)
       || 'b' || id), 1, 16), 'evt_' || left(:tail::text, 31) || 'b', id, 1, now() + interval '25 s'
  FROM webhook_endpoints
 WHERE account_id = :account::text
RETURNING id AS delivery \gset
WITH recorded AS (
    INSERT INTO delivery_attempts (account_id, delivery_id, number, started_at, duration_ms,
                                   status_code, response_start)
    VALUES (:account::text, :delivery::text, 1, now(), 3, 200, '')
), counted AS (
    INSERT INTO counts (account_id, object, currency, status, number, amount)
    VALUES (:account::text, 'webhook', '', 'delivered', 1, 0)
)
UPDATE deliveries SET status = 'delivered', lease_until = NULL, updated_at = now()
 WHERE account_id = :account::text AND id = :delivery::text AND attempts = 1;
