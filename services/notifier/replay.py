"""Replays: events sent once more, no faster than their endpoint takes them.

A step makes some deliveries due and moves the replay's cursor in one commit, so that a replay goes
on where it was, whichever notifier dies. The endpoint's lane does the rest.
"""

import time
from typing import Final

from services.notifier.dispatcher import Dispatcher
from services.notifier.store.replays import advance_replay, find_replays
from shared.db import Database

STEP: Final = 200
"""Events walked at a time."""
MOST_DUE: Final = 100
"""Deliveries that may be due at an endpoint when a step is taken."""


LONGEST: Final = 5.0
"""Seconds for which one run goes on: a service that stops need not wait longer."""


class Replayer:
    """Takes replays further."""

    def __init__(self, database: Database, dispatcher: Dispatcher) -> None:
        self._database = database
        self._dispatcher = dispatcher

    async def run(self) -> None:
        """Take replays further until none can go on for now, or for a while."""
        enough = time.monotonic() + LONGEST
        while await self.run_once() and time.monotonic() < enough:
            pass

    async def run_once(self) -> int:
        """Take every replay that can go on one step further; returns how many did."""
        steps = 0
        for replay in await find_replays(self._database, most_due=MOST_DUE):
            endpoint = await advance_replay(self._database, replay, limit=STEP)
            if endpoint is not None:
                steps += 1
                self._dispatcher.wake(endpoint)
        return steps
