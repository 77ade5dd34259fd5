-- How many payments and refunds came into each state. A state is only ever left for another, so how
-- many stand where follows, and a move appends one row where it appended two: those rows were a
-- fifth of all that was logged for a payment.
CREATE TABLE arrivals (
    account_id  text COLLATE "C" NOT NULL,
    object      text COLLATE "C" NOT NULL CHECK (object IN ('payment', 'refund', 'webhook')),
    currency    text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,
    number      bigint NOT NULL CHECK (number > 0),
    amount      numeric NOT NULL CHECK (amount >= 0)   -- minor units
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX arrivals_by_account ON arrivals (account_id, object, currency, status);

-- How many stand where: what came in, less what went on; an attempt at a webhook goes nowhere. What
-- was counted before is in `counts`, as changes, and so is what a service of the release before
-- counts: the two add up whoever accepts a payment and whoever moves it.
CREATE VIEW standings AS
SELECT account_id, object, currency, status, sum(number) AS number, sum(amount) AS amount
  FROM (SELECT account_id, object, currency, change.status,
               sign * number AS number, sign * amount AS amount
          FROM (SELECT account_id, object, currency, status,
                       sum(number) AS number, sum(amount) AS amount
                  FROM arrivals
                 GROUP BY account_id, object, currency, status) AS reached,
               LATERAL (VALUES (reached.status, 1),
                               (CASE WHEN object = 'webhook' THEN NULL
                                     WHEN reached.status = 'processing' THEN 'pending'
                                     WHEN reached.status IN ('completed', 'failed')
                                     THEN 'processing' END, -1)) AS change (status, sign)
         WHERE change.status IS NOT NULL
         UNION ALL
        SELECT account_id, object, currency, status, number, amount FROM counts) AS changes
 GROUP BY account_id, object, currency, status;

-- Nobody folds them any more.
WITH taken AS (
    DELETE FROM counts RETURNING *
)
INSERT INTO counts (account_id, object, currency, status, number, amount)
SELECT account_id, object, currency, status, sum(number), sum(amount)
  FROM taken
 GROUP BY account_id, object, currency, status;
