"""The life of a payment as a story: pure."""

from collections.abc import Sequence
from typing import Final

from services.api.objects import Step
from services.api.store.timeline import Recorded
from shared.payment import iso

_RANKS: Final = (
    "payment_accepted",
    "refund_accepted",
    "queued_again",
    "taken_from_queue",
    "gateway_called",
    "transferred",
    "event",
    "delivery_attempted",
)
"""What is written by one commit has one time; this is the order in which it follows."""


def in_order(steps: Sequence[Recorded]) -> list[Step]:
    """The steps by time, and those of one moment as one leads to the next."""
    ordered = sorted(steps, key=lambda step: (step.at, _RANKS.index(step.step)))
    return [{"at": iso(step.at), "step": step.step, "detail": step.detail} for step in ordered]
