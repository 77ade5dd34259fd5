-- A payment and a refund are written three times within a moment, a delivery twice. A version that
-- finds room in its row's page stays there, and no index hears of it; one that finds none costs an
-- entry in every index of its table. A page holds rows of one moment, which are all updated
-- together: it needs room for as many versions as it has rows, and what a settled one has more of.
-- What was there before keeps its pages.

ALTER TABLE payments SET (fillfactor = 35);
ALTER TABLE refunds SET (fillfactor = 30);
ALTER TABLE deliveries SET (fillfactor = 45);
