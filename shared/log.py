"""One JSON line an event, on standard error: a stable event name and fields, never a payload.

    log.info("payments_settled", count=100, completed=93, failed=7)

Fields have the names of the things they hold: request_id, payment_id, event_id, delivery_id.
"""

import logging
import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer


def configure(service: str, level: str = "INFO") -> None:
    """Make every logger of this process write JSON lines that carry the name of the service."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Never the local variables of a frame: they hold payloads and secrets.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    # Libraries speak through the standard logging: their warnings are ours too.
    logging.basicConfig(
        level=logging.WARNING,
        format='{"event":"library_warning","logger":"%(name)s","level":"%(levelname)s",'
        '"message":"%(message)s"}',
    )


def without_secrets(url: str) -> str:
    """A URL that may be logged: without its user, password and query."""
    scheme, found, rest = url.partition("://")
    if not found:
        return "an address without a scheme"
    # Nothing is parsed: a password may hold any character, and there may be several hosts.
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
