"""What an error can be, by its stable code. Clients may match on these: none is ever renamed."""

from enum import StrEnum


class Code(StrEnum):
    """Each with what it means and what to do, as docs/errors.md lists them."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> "Code":
        """A code that carries its meaning."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    # The request.
    PARAMETER_MISSING = "parameter_missing", "A required parameter is missing; send it."
    PARAMETER_INVALID = "parameter_invalid", "A parameter has a wrong value; the message says how."
    PARAMETER_UNKNOWN = (
        "parameter_unknown",
        "There is no such parameter here; the message lists those that are known.",
    )
    BODY_INVALID = "body_invalid", "The body is not one JSON object, or not one form."
    BODY_TOO_LARGE = "body_too_large", "The body is larger than 1 MiB."
    CONTENT_TYPE_UNSUPPORTED = (
        "content_type_unsupported",
        "Send application/json or application/x-www-form-urlencoded.",
    )
    ENCODING_UNSUPPORTED = "encoding_unsupported", "Send the body without Content-Encoding."
    EXPECTATION_FAILED = "expectation_failed", "Of `Expect`, only 100-continue is met."
    REQUEST_INVALID = "request_invalid", "The request cannot be answered; the message says why."
    REQUEST_MALFORMED = "request_malformed", "The request is not valid HTTP/1.1."
    ROUTE_UNKNOWN = "route_unknown", "There is nothing at this path."
    METHOD_NOT_ALLOWED = (
        "method_not_allowed",
        "This path does not answer to this method; `Allow` says to which it does.",
    )
    RESOURCE_MISSING = "resource_missing", "This account has no object with this id."

    # Idempotency.
    IDEMPOTENCY_KEY_INVALID = (
        "idempotency_key_invalid",
        "Idempotency-Key must have 1 to 255 printable characters.",
    )
    IDEMPOTENCY_KEY_REUSED = (
        "idempotency_key_reused",
        "The key was used before with another body: send a new key, or the first body.",
    )

    # Refunds.
    CHARGE_NOT_REFUNDABLE = (
        "charge_not_refundable",
        "The payment is not completed: wait for it, or there is nothing to refund.",
    )
    CHARGE_ALREADY_REFUNDED = "charge_already_refunded", "Nothing is left to refund."
    AMOUNT_TOO_LARGE = "amount_too_large", "More than is left to refund; the message says how much."

    # Webhooks.
    DELIVERY_NOT_REPEATABLE = (
        "delivery_not_repeatable",
        "An attempt is under way, or the endpoint is disabled or deleted; the message says which.",
    )

    # Who, and how often.
    API_KEY_INVALID = "api_key_invalid", "The API key is missing, wrong or revoked."
    HOST_NOT_LOCAL = (
        "host_not_local",
        "Without keys, the server answers to loopback names only.",
    )
    ORIGIN_NOT_LOCAL = (
        "origin_not_local",
        "Without keys, pages of other origins may not use the server.",
    )
    PROXY_NOT_LOCAL = (
        "proxy_not_local",
        "Without keys, the server answers no proxy: others may stand behind it.",
    )
    RATE_LIMIT_EXCEEDED = (
        "rate_limit_exceeded",
        "Too many requests of this user; try again after `Retry-After` seconds.",
    )

    # Ours.
    UNAVAILABLE = (
        "unavailable",
        "Saturated, or Postgres is away: try again, unchanged, after `Retry-After` seconds.",
    )
    INTERNAL_ERROR = "internal_error", "A fault here; it was logged under the request id."
