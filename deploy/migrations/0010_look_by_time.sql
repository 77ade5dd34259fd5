-- A sweep looks at what was made between two moments. A BRIN index knows nothing of pages that were
-- filled since the last vacuum, so each look read all of them: everything, in a young table, and up
-- to a fifth of a grown one. A row's time never changes, so this costs no HOT update.

-- Built before the old ones go: until then tables can be read, and only writes wait.
CREATE INDEX payments_by_creation ON payments (created_at);
CREATE INDEX refunds_by_creation ON refunds (created_at);
CREATE INDEX events_by_creation ON events (created_at);
CREATE INDEX deliveries_by_creation ON deliveries (created_at);

DROP INDEX payments_by_time, refunds_by_time, events_by_time, deliveries_by_time;

ALTER INDEX payments_by_creation RENAME TO payments_by_time;
ALTER INDEX refunds_by_creation RENAME TO refunds_by_time;
ALTER INDEX events_by_creation RENAME TO events_by_time;
ALTER INDEX deliveries_by_creation RENAME TO deliveries_by_time;
