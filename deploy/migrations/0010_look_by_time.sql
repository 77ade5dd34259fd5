-- A sweep looks at what was made between two moments. A BRIN index knows nothing of pages that were
-- filled since the last vacuum, so each look read all of them: everything, in a young table, and up
-- to a fifth of a grown one. A row's time never changes, so this costs no HOT update.

DROP INDEX payments_by_time;
DROP INDEX refunds_by_time;
DROP INDEX events_by_time;
DROP INDEX deliveries_by_time;

CREATE INDEX payments_by_time ON payments (created_at);
CREATE INDEX refunds_by_time ON refunds (created_at);
CREATE INDEX events_by_time ON events (created_at);
CREATE INDEX deliveries_by_time ON deliveries (created_at);
