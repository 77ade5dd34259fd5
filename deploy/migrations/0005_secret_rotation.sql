-- While a rotation lasts, requests are signed with the secrets before, too: with all of them, for a
-- rotation may be asked for again before its answer was heard.

ALTER TABLE webhook_endpoints
    ADD COLUMN previous_secrets text[] NOT NULL DEFAULT '{}',
    ADD COLUMN previous_secrets_until timestamptz;

-- What is dead or waits for a retry is looked for by endpoint. Both columns stay null when a first
-- attempt succeeds: that update stays heap-only. The rule is one-sided, because a notifier of the
-- release before may still be writing.
ALTER TABLE deliveries
    ADD COLUMN dead_at timestamptz,
    ADD CHECK (dead_at IS NULL OR status = 'dead') NOT VALID;
UPDATE deliveries SET dead_at = updated_at WHERE status = 'dead';
CREATE INDEX deliveries_dead ON deliveries (account_id, endpoint_id, id)
    WHERE dead_at IS NOT NULL;
CREATE INDEX deliveries_retrying ON deliveries (account_id, endpoint_id, id)
    WHERE next_attempt_at IS NOT NULL;
