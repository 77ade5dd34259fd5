"""The data access that the environment chose: `orm` and `core` have the same functions."""

from . import config

if config.DATA_ACCESS == "core":
    from .core import (
        claim,
        complete,
        create_endpoint,
        create_payment,
        find_account,
        find_open_deliveries,
        load_delivery,
        record_attempt,
    )
else:
    from .orm import (
        claim,
        complete,
        create_endpoint,
        create_payment,
        find_account,
        find_open_deliveries,
        load_delivery,
        record_attempt,
    )

__all__ = [
    "claim",
    "complete",
    "create_endpoint",
    "create_payment",
    "find_account",
    "find_open_deliveries",
    "load_delivery",
    "record_attempt",
]
