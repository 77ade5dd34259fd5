-- A replay is a walk along an account's events by id, which is by time. The row is the whole of it:
-- whoever takes it up goes on behind the cursor.

CREATE TABLE replays (
    account_id   text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    endpoint_id  text COLLATE "C" NOT NULL,
    since        timestamptz NOT NULL,
    until        timestamptz NOT NULL,
    types        text[] NOT NULL,
    only_dead    boolean NOT NULL,
    cursor       text COLLATE "C" NOT NULL,    -- the last event that was dealt with
    stop_before  text COLLATE "C" NOT NULL,    -- the first that is too late
    events       bigint NOT NULL,              -- how many there are to deal with
    sent_again   bigint NOT NULL DEFAULT 0,
    sent_first   bigint NOT NULL DEFAULT 0,    -- that had never been sent
    passed_over  bigint NOT NULL DEFAULT 0,    -- whose delivery is open, or not dead as asked
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    canceled     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (account_id, id),
    CHECK (NOT canceled OR finished_at IS NOT NULL)
);
CREATE INDEX replays_running ON replays (account_id, id) WHERE finished_at IS NULL;
CREATE INDEX replays_by_endpoint ON replays (account_id, endpoint_id, id);

-- The dead letters of an account. Few are, and the column stays null for all others.
CREATE INDEX deliveries_dead_of_account ON deliveries (account_id, id) WHERE dead_at IS NOT NULL;
