-- Refunds: reserved on the payment when accepted, given back when they fail.

CREATE TABLE refunds (
    account_id           text COLLATE "C" NOT NULL,
    id                   text COLLATE "C" NOT NULL,
    payment_id           text COLLATE "C" NOT NULL,
    amount               bigint NOT NULL CHECK (amount > 0),              -- minor units
    currency             text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    payment_reference    text,              -- the gateway's name for what is given back
    reason               text,
    metadata             jsonb NOT NULL DEFAULT '{}',
    status               text COLLATE "C" NOT NULL DEFAULT 'pending'
                         CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    gateway              text,
    gateway_reference    text,
    gateway_calls        jsonb NOT NULL DEFAULT '[]',
    failure_code         text,
    failure_message      text,
    unknown_since        timestamptz,
    queued_again_at      timestamptz,
    idempotency_key      text COLLATE "C",
    request_fingerprint  bytea,
    request_id           text COLLATE "C",
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    processed_at         timestamptz,
    PRIMARY KEY (account_id, id),
    UNIQUE (account_id, idempotency_key),
    CHECK ((idempotency_key IS NULL) = (request_fingerprint IS NULL)),
    CHECK ((status = 'failed') = (failure_code IS NOT NULL)),
    CHECK ((status IN ('completed', 'failed')) = (processed_at IS NOT NULL)),
    CHECK (unknown_since IS NULL OR status = 'processing')
) WITH (fillfactor = 70);
CREATE INDEX refunds_by_payment ON refunds (account_id, payment_id, id);
CREATE INDEX refunds_unknown ON refunds (account_id, id) WHERE unknown_since IS NOT NULL;
CREATE INDEX refunds_by_time ON refunds USING brin (created_at) WITH (pages_per_range = 16);

-- Every question that the gateway was asked, and what came of it: appended by the very updates that
-- write what it came to, so that knowing costs no row and no index.
ALTER TABLE payments ADD COLUMN gateway_calls jsonb NOT NULL DEFAULT '[]';

-- The predicate names a column that stays null when a payment completes: that update stays
-- heap-only, and only one that fails pays for the index.
CREATE INDEX payments_failed ON payments (account_id, id) WHERE failure_code IS NOT NULL;
CREATE INDEX refunds_failed ON refunds (account_id, id) WHERE failure_code IS NOT NULL;

-- Few are of unknown outcome: whoever looks for them finds them all, or an account's by id.
DROP INDEX payments_unknown;
CREATE INDEX payments_unknown ON payments (account_id, id) WHERE unknown_since IS NOT NULL;

-- A currency never changes, so these cost an entry for each row and no update.
CREATE INDEX payments_by_currency ON payments (account_id, currency, id);
CREATE INDEX transfers_by_currency ON transfers (account_id, currency, id);

-- Rare types are found without walking past the common ones.
CREATE INDEX events_by_type ON events (account_id, type, id);

-- Not validated: the rule that it replaces was stricter, so that every row keeps it.
ALTER TABLE transfers
    DROP CONSTRAINT transfers_kind_check,
    ADD CONSTRAINT transfers_kind_check CHECK (kind IN ('payment', 'refund')) NOT VALID;

-- The same counting for refunds, and for attempts at webhooks by what came of them.
ALTER TABLE payment_counts RENAME TO counts;
ALTER TABLE counts RENAME COLUMN payments TO number;
ALTER TABLE counts ADD COLUMN object text COLLATE "C" NOT NULL DEFAULT 'payment'
    CHECK (object IN ('payment', 'refund', 'webhook'));
ALTER TABLE counts ALTER COLUMN object DROP DEFAULT;
DROP INDEX payment_counts_by_account;
CREATE INDEX counts_by_account ON counts (account_id, object, currency, status);
