-- Events of an account are numbered 1, 2, 3 … in the order of their commits, and every payload says
-- its number: a receiver sees what it has not heard, and a reader that has seen a number has seen
-- all that are lower. Events from before have none.

CREATE TABLE event_sequences (
    account_id  text COLLATE "C" PRIMARY KEY REFERENCES accounts (id),
    last        bigint NOT NULL CHECK (last > 0)
) WITH (fillfactor = 50);

-- An event about an endpoint is not told to that endpoint.
ALTER TABLE events
    ADD COLUMN sequence bigint CHECK (sequence > 0),
    ADD COLUMN endpoint_id text COLLATE "C";
CREATE UNIQUE INDEX events_by_sequence ON events (account_id, sequence) WHERE sequence IS NOT NULL;
