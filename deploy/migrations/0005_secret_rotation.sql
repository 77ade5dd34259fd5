-- While a rotation lasts, requests are signed with both secrets.

ALTER TABLE webhook_endpoints
    ADD COLUMN previous_secret text,
    ADD COLUMN previous_secret_until timestamptz,
    ADD CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL));

-- What is dead or waits for a retry is looked for by endpoint. Both columns stay null when a first
-- attempt succeeds: that update stays heap-only.
ALTER TABLE deliveries
    ADD COLUMN dead_at timestamptz,
    ADD CHECK ((status = 'dead') = (dead_at IS NOT NULL)) NOT VALID;
UPDATE deliveries SET dead_at = updated_at WHERE status = 'dead';
CREATE INDEX deliveries_dead ON deliveries (account_id, endpoint_id, id)
    WHERE dead_at IS NOT NULL;
CREATE INDEX deliveries_retrying ON deliveries (account_id, endpoint_id, id)
    WHERE next_attempt_at IS NOT NULL;
