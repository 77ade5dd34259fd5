-- One endpoint's trouble is its own: what it does not take waits in the table, in its own order, and
-- an endpoint that fails for days, or says that it is gone, is disabled, with what it was to hear.

ALTER TABLE webhook_endpoints
    ADD COLUMN failing_since timestamptz,      -- the first failure since the last success
    ADD COLUMN disabled_at timestamptz,
    ADD COLUMN disabled_reason text,
    ADD COLUMN custom_headers text,            -- sealed JSON: some of them are secrets
    ADD COLUMN custom_header_names text[] NOT NULL DEFAULT '{}',
    ADD CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL));
CREATE INDEX webhook_endpoints_disabled ON webhook_endpoints (account_id, id)
    WHERE disabled_at IS NOT NULL;

-- Held while the endpoint is disabled. Like dead_at, held_at is what an index may name: it stays
-- null when a first attempt succeeds, and that update stays heap-only.
ALTER TABLE deliveries
    DROP CONSTRAINT deliveries_status_check,
    ADD CONSTRAINT deliveries_status_check
        CHECK (status IN ('pending', 'retrying', 'held', 'delivered', 'dead')) NOT VALID,
    ADD COLUMN held_at timestamptz,
    ADD CHECK ((status = 'held') = (held_at IS NOT NULL)) NOT VALID;
CREATE INDEX deliveries_held ON deliveries (account_id, endpoint_id, id)
    WHERE held_at IS NOT NULL;

-- The backlog of an endpoint, what is due first. It takes the place of the index of all that is due,
-- in which one endpoint's backlog stood before everybody else's.
CREATE INDEX deliveries_backlog ON deliveries (account_id, endpoint_id, next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL;
DROP INDEX deliveries_due;
