-- The chain from an accepted payment to a delivered webhook.
--
-- Every tenant row belongs to an account and every primary or unique key starts with account_id, so
-- that the data can be spread by account. The outbox and the sweep marks belong to no tenant: they
-- are the plumbing of one database.
--
-- Identifiers are compared byte by byte (COLLATE "C"): they sort by time, and compare fast.

CREATE TABLE accounts (
    id          text COLLATE "C" PRIMARY KEY,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    account_id  text COLLATE "C" NOT NULL REFERENCES accounts (id),
    id          text COLLATE "C" NOT NULL,
    prefix      text COLLATE "C" NOT NULL,     -- the first characters of the key: how it is found
    key_hash    bytea NOT NULL,                -- SHA-256 of the whole key; the key is not stored
    role        text NOT NULL CHECK (role IN ('secret', 'operator')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    PRIMARY KEY (account_id, id)
);
CREATE INDEX api_keys_by_prefix ON api_keys (prefix);

-- A payment is updated twice in its life. No index names a column that those updates change, and
-- pages keep room, so that both stay heap-only (HOT) updates and touch no index.
CREATE TABLE payments (
    account_id           text COLLATE "C" NOT NULL,
    id                   text COLLATE "C" NOT NULL,
    amount               bigint NOT NULL CHECK (amount > 0),              -- minor units
    currency             text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    customer             text,
    description          text,
    metadata             jsonb NOT NULL DEFAULT '{}',
    status               text COLLATE "C" NOT NULL DEFAULT 'pending'
                         CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    amount_refunded      bigint NOT NULL DEFAULT 0
                         CHECK (amount_refunded >= 0 AND amount_refunded <= amount),
    gateway              text,
    gateway_reference    text,
    failure_code         text,
    failure_message      text,
    unknown_since        timestamptz,       -- the gateway was asked and has not answered
    queued_again_at      timestamptz,       -- its message was taken for lost
    idempotency_scope    text COLLATE "C",  -- the route that the key was sent to
    idempotency_key      text COLLATE "C",
    request_fingerprint  bytea,
    request_id           text COLLATE "C",
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    processed_at         timestamptz,
    PRIMARY KEY (account_id, id),
    UNIQUE (account_id, idempotency_key, idempotency_scope),
    CHECK ((idempotency_key IS NULL) = (request_fingerprint IS NULL)),
    CHECK ((status = 'failed') = (failure_code IS NOT NULL)),
    CHECK ((status IN ('completed', 'failed')) = (processed_at IS NOT NULL)),
    CHECK (unknown_since IS NULL OR status = 'processing')
) WITH (fillfactor = 70);
CREATE INDEX payments_by_customer ON payments (account_id, customer, id) WHERE customer IS NOT NULL;
CREATE INDEX payments_unknown ON payments (unknown_since) WHERE unknown_since IS NOT NULL;
CREATE INDEX payments_by_time ON payments USING brin (created_at) WITH (pages_per_range = 16);

-- How many payments are in each state, as changes: accepting and settling append, nobody waits for
-- a counter's lock, and the janitor folds many changes into one.
CREATE TABLE payment_counts (
    account_id  text COLLATE "C" NOT NULL,
    currency    text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,
    payments    bigint NOT NULL,
    amount      numeric NOT NULL               -- minor units
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX payment_counts_by_account ON payment_counts (account_id, currency, status);

-- Double entry. A transfer moves one amount from one ledger account to another, so it is balanced by
-- construction; a correction is a new transfer.
CREATE TABLE ledger_accounts (
    account_id      text COLLATE "C" NOT NULL,
    currency        text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL CHECK (kind IN ('gateway_clearing', 'merchant_balance')),
    debits_posted   numeric NOT NULL DEFAULT 0 CHECK (debits_posted >= 0),
    credits_posted  numeric NOT NULL DEFAULT 0 CHECK (credits_posted >= 0),
    PRIMARY KEY (account_id, currency, kind)
) WITH (fillfactor = 50);

CREATE TABLE transfers (
    account_id  text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    debit       text COLLATE "C" NOT NULL,     -- kinds of two ledger accounts of this account
    credit      text COLLATE "C" NOT NULL,
    currency    text COLLATE "C" NOT NULL,
    amount      bigint NOT NULL CHECK (amount > 0),
    kind        text COLLATE "C" NOT NULL CHECK (kind IN ('payment')),
    source_id   text COLLATE "C" NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, id),
    UNIQUE (account_id, kind, source_id),
    CHECK (debit <> credit)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: correct it with a new row', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER transfers_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE events (
    account_id  text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,
    object_id   text COLLATE "C" NOT NULL,
    body        text NOT NULL,                 -- exactly what is signed and sent
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, id),
    UNIQUE (account_id, object_id, type)
);
CREATE INDEX events_by_time ON events USING brin (created_at) WITH (pages_per_range = 16);

CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange     text NOT NULL,
    routing_key  text NOT NULL,
    body         text NOT NULL,
    headers      text,
    created_at   timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE webhook_endpoints (
    account_id      text COLLATE "C" NOT NULL REFERENCES accounts (id),
    id              text COLLATE "C" NOT NULL,
    url             text NOT NULL,
    enabled_events  text[] NOT NULL CHECK (cardinality(enabled_events) > 0),
    description     text,
    metadata        jsonb NOT NULL DEFAULT '{}',
    secret          text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz,
    PRIMARY KEY (account_id, id)
);

-- One for each event and endpoint. A first attempt that succeeds changes no indexed column.
CREATE TABLE deliveries (
    account_id       text COLLATE "C" NOT NULL,
    id               text COLLATE "C" NOT NULL,
    event_id         text COLLATE "C" NOT NULL,
    endpoint_id      text COLLATE "C" NOT NULL,
    status           text COLLATE "C" NOT NULL DEFAULT 'pending'
                     CHECK (status IN ('pending', 'retrying', 'delivered', 'dead')),
    attempts         integer NOT NULL DEFAULT 0,
    lease_until      timestamptz,              -- an attempt is under way until then, or was lost
    next_attempt_at  timestamptz,              -- when a failed delivery is tried again
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, id),
    UNIQUE (account_id, event_id, endpoint_id),
    CHECK ((status = 'retrying') = (next_attempt_at IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX deliveries_by_endpoint ON deliveries (account_id, endpoint_id, id);
CREATE INDEX deliveries_by_time ON deliveries USING brin (created_at) WITH (pages_per_range = 16);

CREATE TABLE delivery_attempts (
    account_id      text COLLATE "C" NOT NULL,
    delivery_id     text COLLATE "C" NOT NULL,
    number          integer NOT NULL CHECK (number > 0),
    started_at      timestamptz NOT NULL,
    duration_ms     integer,                   -- null: the notifier stopped before the outcome
    status_code     integer,
    response_start  text,
    error           text,
    PRIMARY KEY (account_id, delivery_id, number)
);

-- Sweepers look for work that the broker lost. Everything made before its mark has been seen to be
-- done, so that a look costs what is new, not what is there. That holds because created_at is this
-- server's clock at the start of a transaction, and a statement may last half as long as a sweeper
-- waits: nothing older than a mark can still be on its way to a commit.
CREATE TABLE sweep_marks (
    name  text PRIMARY KEY,
    mark  timestamptz NOT NULL
);

INSERT INTO accounts (id, name) VALUES ('acct_default', 'Default account');
