-- What an endpoint was subscribed to, and when: an event goes to those who were subscribed when it
-- happened, however the endpoint was changed since.

-- What a service of the release before is writing must be there before it is copied.
LOCK TABLE webhook_endpoints IN ACCESS EXCLUSIVE MODE;

CREATE TABLE webhook_subscriptions (
    account_id      text COLLATE "C" NOT NULL,
    endpoint_id     text COLLATE "C" NOT NULL,
    enabled_events  text[] NOT NULL CHECK (cardinality(enabled_events) > 0),
    since           timestamptz NOT NULL DEFAULT now(),
    until           timestamptz,               -- null: still in force
    PRIMARY KEY (account_id, endpoint_id, since)
);
CREATE UNIQUE INDEX webhook_subscriptions_in_force
    ON webhook_subscriptions (account_id, endpoint_id) WHERE until IS NULL;

INSERT INTO webhook_subscriptions (account_id, endpoint_id, enabled_events, since, until)
SELECT account_id, id, enabled_events, created_at, deleted_at FROM webhook_endpoints;

ALTER TABLE webhook_endpoints DROP COLUMN enabled_events;
