-- Answers to requests that carried an Idempotency-Key and made no payment or refund: those keep
-- their key in their own row.

CREATE TABLE request_answers (
    account_id   text COLLATE "C" NOT NULL,
    route        text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    fingerprint  bytea NOT NULL,
    body         text NOT NULL DEFAULT '',     -- the answer's JSON
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, route, key)
);
CREATE INDEX request_answers_by_time ON request_answers (created_at);
