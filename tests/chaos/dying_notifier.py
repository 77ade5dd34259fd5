"""A notifier that kills itself, as by `kill -9`, at a chosen point of its first delivery.

    python -m tests.chaos.dying_notifier POINT MARK

The code of the service is untouched: this puts a step that dies around each call that matters. It
dies once: the file MARK says that it did.
"""

import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from services.notifier import attempts, dispatcher, handlers
from services.notifier.app import make_app
from services.notifier.config import NotifierSettings
from services.notifier.sender import Sender
from shared.broker.acks import AckWindow
from shared.broker.consumer import Consumer
from shared.broker.publisher import Publisher
from shared.lifecycle import main

CALLS: Final[dict[str, tuple[Any, str]]] = {
    "open deliveries": (handlers, "open_deliveries"),
    "claim": (attempts, "claim_attempts"),
    "send": (Sender, "send"),
    "record": (attempts, "record_attempts"),
    "note health": (attempts, "mark_failing"),
    "publish": (Publisher, "publish"),
    "look up what is due": (handlers, "look_up_targets"),
    "pull": (dispatcher, "find_due"),
}
"""Every await of a delivery that matters, by name."""
POINTS: Final = [f"{side} {call}" for call in CALLS for side in ("before", "after")] + [
    "before ack",
    "after ack",
]


def die_at(point: str, mark: Path) -> None:
    """Have this process killed when it comes to `point`, unless one was killed there before."""

    def die() -> None:
        if not mark.exists():
            mark.write_text(point)
            os.kill(os.getpid(), signal.SIGKILL)

    if point == "before ack":
        take = AckWindow.take

        def dying_take(self: AckWindow) -> int | None:
            tag = take(self)
            if tag is not None:
                die()
            return tag

        AckWindow.take = dying_take  # type: ignore[method-assign]
        return
    if point == "after ack":
        CALLS["ack"] = (Consumer, "_deal_with")
    side, _, call = point.partition(" ")
    owner, name = CALLS[call]
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @functools.wraps(original)
    async def dying(*args: Any, **kwargs: Any) -> Any:
        if side == "before":
            die()
        result = await original(*args, **kwargs)
        if side == "after":
            die()
        return result

    setattr(owner, name, dying)


if __name__ == "__main__":
    die_at(sys.argv[1], Path(sys.argv[2]))
    attempts.LEASE_MARGIN = 1.0  # type: ignore[misc]  # what died is attempted again sooner
    main("notifier", NotifierSettings, make_app)
