"""The counters and gauges that a process shows at /metrics. Prometheus text; labels are few."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

PAYMENTS_ACCEPTED: Final = Counter(
    "florin_payments_accepted_total",
    "Payments committed, by whether the request was a repeat.",
    ["replayed"],
)
SETTLED: Final = Counter(
    "florin_settled_total", "Payments and refunds that reached an outcome.", ["kind", "outcome"]
)
REFUNDS_ACCEPTED: Final = Counter(
    "florin_refunds_accepted_total",
    "Refunds committed, by whether the request was a repeat.",
    ["replayed"],
)
UNKNOWN: Final = Counter(
    "florin_unknown_total", "Times the gateway gave no answer in time.", ["kind"]
)
WEBHOOK_ATTEMPTS: Final = Counter(
    "florin_webhook_attempts_total", "Attempts at delivering a webhook, by outcome.", ["outcome"]
)
WEBHOOKS_UNDER_WAY: Final = Gauge(
    "florin_webhooks_under_way", "Attempts at delivering a webhook that are being made now."
)
ENDPOINTS_LEFT_ALONE: Final = Gauge(
    "florin_endpoints_left_alone", "Endpoints that failed so often that a breaker holds them off."
)
ENDPOINTS_BEHIND: Final = Gauge(
    "florin_endpoints_behind", "Endpoints of which something is overdue, at the last look."
)
DEAD_LETTERS: Final = Counter(
    "florin_dead_letters_total", "Messages put aside for a person to look at.", ["queue"]
)
PUBLISHED: Final = Counter("florin_messages_published_total", "Messages confirmed by the broker.")
REQUESTS: Final = Counter("florin_http_requests_total", "Requests answered.", ["method", "status"])
REQUEST_SECONDS: Final = Histogram(
    "florin_http_request_seconds",
    "Time to answer a request.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
BATCH_SIZE: Final = Histogram(
    "florin_batch_size",
    "Rows written by one statement.",
    ["step"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
