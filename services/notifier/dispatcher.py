"""Who is attempted next: one lane for each endpoint, and a bounded number of places for all.

    first attempts ─► lane ─┐
                            ├─► a place ─► attempt
    due, from Postgres ─► lane ─┘

Consumers hand over what is committed and ack at once, so that no queue waits for an endpoint. What
a lane does not take stays in Postgres, due, and is pulled in its order when the endpoint has room.
A process that dies loses nothing but time: the sweeper finds what it had.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from random import random
from typing import Any, Final

import structlog

from services.notifier.attempts import Attempts
from services.notifier.lane import Lane
from services.notifier.pace import TICK, Pace
from services.notifier.policy import Delivered
from services.notifier.store.backlog import defer, find_due
from services.notifier.store.opening import Target
from services.notifier.window import QUICK, RESERVED
from shared import metrics
from shared.batcher import Batcher
from shared.broker import Outgoing, Publisher
from shared.db import Database
from shared.errors import Transient
from shared.messages import DELIVERIES, Item, encode
from shared.patience import persist
from shared.states import DeliveryStatus
from shared.topology import COMMANDS

log = structlog.get_logger()

MOST_FIRSTS: Final = 100_000
"""First attempts that may wait here in all; what is more waits in the table."""
MOST_LANES: Final = 10_000
"""Endpoints that are remembered while nothing waits for them: how wide their lanes are, and whether
they are quick."""
BIT: Final = 20
BETWEEN_BITS: Final = 0.05
"""What a closed lane leaves to the table at a time, and seconds between."""
ENVELOPE: Final = 100
"""Deliveries given back in one message."""
EARLY: Final = 0.005
"""Seconds by which a timer may be early, by the database's clock or by that of an event loop which
counts whole milliseconds."""


class Dispatcher:
    """The lanes, and the attempts that are under way: at most `places`, and from the backlog, while
    there is news, at most `backlog_rate` a second."""

    def __init__(
        self,
        database: Database,
        attempts: Attempts,
        publisher: Publisher,
        *,
        places: int,
        backlog_rate: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempts = attempts
        self._publisher = publisher
        self._places = self._free = places
        self._reserved = int(RESERVED * places)
        self._clock = clock
        self._lanes: dict[Item, Lane] = {}
        # Lanes in which something waits, whose turn is next first: those that are quick, for which
        # places are kept, and the others.
        self._ready = {True: OrderedDict[Item, Lane](), False: OrderedDict[Item, Lane]()}
        self._held_up: dict[Item, Lane] = {}
        """Lanes that wait for the pace of the backlog alone."""
        self._hungry: dict[Item, Lane] = {}
        """Lanes that may want to pull."""
        self._refusing: dict[Item, Lane] = {}
        """Lanes that took no first attempts when they were last looked at."""
        self._firsts = 0
        """First attempts that wait in all lanes."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._deferrals = Batcher[Item, None](lambda items: _defer(database, items), max_size=500)
        self._pulls = Batcher[tuple[Item, int], list[Item]](
            lambda asked: _pull(database, asked), max_size=100
        )
        self._timers = 0
        self._coming_back = False
        self._pace = Pace(backlog_rate)
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()

    async def offer(self, targets: Sequence[Target]) -> None:
        """Take deliveries in hand; returns when nothing of them depends on the caller any more.

        What was never attempted waits in its lane, or, where that is full or closed, in the table.
        """
        if self._stopping.is_set():
            await self._give_back([target.item for target in targets])
            return
        turned_away = []
        for target in targets:
            lane = self._lane(target.endpoint)
            if target.status is not DeliveryStatus.PENDING:
                self._fall_behind(lane)
            elif self._take_in(lane, target.item):
                self._pace.news(self._clock())
                self._line_up(lane)
            else:
                turned_away.append(target)
                self._refusing[lane.endpoint] = lane
        self._pump()
        if turned_away:
            await self._leave([target.item for target in turned_away])
            for target in turned_away:
                self._fall_behind(self._lane(target.endpoint))
            self._pump()

    def refusing(self) -> list[Item]:
        """The endpoints whose first attempts must wait in the table: they may be written there as
        due at once, and need not be offered."""
        self._refusing = {e: lane for e, lane in self._refusing.items() if lane.refuses}
        return list(self._refusing)

    def wake(self, endpoint: Item, after: float = 0.0) -> None:
        """See to what is due at an endpoint, `after` seconds from now."""
        if after > 0:
            self._timers += 1
            asyncio.get_running_loop().call_later(after + EARLY, self._ring, endpoint)
        else:
            self.wake_all([endpoint])

    def wake_all(self, endpoints: Iterable[Item]) -> None:
        """See to what is due at endpoints now."""
        if not self._stopping.is_set():
            for endpoint in endpoints:
                self._fall_behind(self._lane(endpoint))
            self._pump()

    def probe(self, endpoint: Item, item: Item | None = None) -> None:
        """See to what is due at an endpoint now, `item` first, also where a breaker holds it off: a
        person has asked for it."""
        if self._stopping.is_set():
            return
        lane = self._lane(endpoint)
        lane.breaker.probe(self._clock())
        if item is not None:
            lane.put_first(item)
        self.wake(endpoint)

    async def run(self) -> None:
        """Attempt what is offered and due, until `stop`; then finish what is under way, and give
        back what waits."""
        await self._stopping.wait()
        waiting = [item for lane in self._lanes.values() for item in self._empty(lane)]
        if waiting:
            self._spawn(self._give_back(waiting))
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    async def idle(self) -> None:
        """Return when nothing is under way, waits here, or is known to be due soon, but for what
        is left alone by a breaker."""
        while (
            self._tasks
            or self._timers
            or any(lane.breaker.closed and not lane.idle for lane in self._lanes.values())
        ):
            self._changed.clear()
            await self._changed.wait()

    def _lane(self, endpoint: Item) -> Lane:
        lane = self._lanes.get(endpoint)
        if lane is None:
            if len(self._lanes) >= MOST_LANES:
                for known in [lane for lane in self._lanes.values() if lane.forgettable]:
                    del self._lanes[known.endpoint]
            lane = self._lanes[endpoint] = Lane(endpoint)
        return lane

    def _ring(self, endpoint: Item) -> None:
        self._timers -= 1
        self.wake(endpoint)
        self._changed.set()

    def _free_for(self, lane: Lane) -> int:
        return self._free if lane.quick else self._free - self._reserved

    def _take_in(self, lane: Lane, item: Item) -> bool:
        if self._firsts >= MOST_FIRSTS:
            return item.id in lane.here
        before = len(lane.first)
        taken = lane.offer(item)
        self._firsts += len(lane.first) - before
        return taken

    def _empty(self, lane: Lane) -> list[Item]:
        firsts = lane.turn_away()
        self._firsts -= len(firsts)
        return firsts

    def _fall_behind(self, lane: Lane) -> None:
        lane.behind = True
        self._hungry[lane.endpoint] = lane
        self._line_up(lane)

    def _line_up(self, lane: Lane) -> None:
        """Have a lane in which something waits come to its turn."""
        if lane.waits:
            self._ready[not lane.quick].pop(lane.endpoint, None)
            self._ready[lane.quick].setdefault(lane.endpoint, lane)

    def _pump(self) -> None:
        """Begin all that may begin: one from each lane, in turns; then pull where there is room.

        A lane that may not begin anything leaves the line: it comes back when an attempt of its own
        ends, when its breaker lets it, or with the pace. So a pump costs what it begins.
        """
        if self._stopping.is_set():
            return
        now = self._clock()
        for quick in (True, False):
            line = self._ready[quick]
            while line:
                free = self._free if quick else self._free - self._reserved
                if free <= 0:
                    break
                _, lane = line.popitem(last=False)
                if self._begin_one(lane, now, free):
                    self._line_up(lane)
        for lane in self._hungry.values():
            wanted = lane.wants(now, self._free_for(lane))
            if wanted:
                lane.behind, lane.pulling = False, True
                self._spawn(self._pull(lane, wanted))
        self._hungry.clear()
        metrics.WEBHOOKS_UNDER_WAY.set(self._places - self._free)

    def _begin_one(self, lane: Lane, now: float, free: int) -> bool:
        """Begin the next attempt of a lane, if it may; False when it may not."""
        firsts, backlogged = len(lane.first), len(lane.backlog)
        wait = self._pace.wait(now) if backlogged else 0.0
        item = lane.take(now, free, backlog=wait <= 0)
        if item is None:
            if wait > 0 and not firsts:
                self._held_up[lane.endpoint] = lane
                self._come_back(max(wait, TICK))
            return False
        if len(lane.backlog) < backlogged:
            self._pace.begun(now)
        self._firsts -= firsts - len(lane.first)
        self._free -= 1
        self._spawn(self._attempt(lane, item, now))
        return True

    def _come_back(self, after: float) -> None:
        """Pump once more when the pace of the backlog allows it."""
        if not self._coming_back:
            self._coming_back = True
            asyncio.get_running_loop().call_later(after, self._resume)

    def _resume(self) -> None:
        self._coming_back = False
        held_up, self._held_up = self._held_up, {}
        for lane in held_up.values():
            self._line_up(lane)
        self._pump()

    async def _attempt(self, lane: Lane, item: Item, began: float) -> None:
        judged = None
        try:
            judged = await self._attempts.attempt(item)
        except Exception:  # of one delivery; the table has it, and the sweeper comes by
            log.exception("attempt_failed", delivery_id=item.id)
        finally:
            self._free += 1
            lane.finished(item)
        if judged is not None and judged.result.sent:
            self._learn(lane, isinstance(judged.verdict, Delivered), began)
        self._look_again(lane)

    def _look_again(self, lane: Lane) -> None:
        self._line_up(lane)
        if lane.behind:
            self._hungry[lane.endpoint] = lane
        self._pump()

    def _learn(self, lane: Lane, success: bool, began: float) -> None:
        """What an outcome says about its endpoint."""
        now, was_closed = self._clock(), lane.breaker.closed
        lane.quick = success and now - began <= QUICK
        if success:
            lane.breaker.succeeded()
            lane.window.succeeded(lane.in_flight + 1)
            if not was_closed:
                metrics.ENDPOINTS_LEFT_ALONE.dec()
                log.info("endpoint_is_back", endpoint_id=lane.endpoint.id)
            return
        lane.window.failed(began, now)
        lane.breaker.failed(began, now, random())  # noqa: S311 - jitter
        if lane.breaker.probe_at is None or lane.breaker.probe_at <= now:
            return
        if was_closed:
            metrics.ENDPOINTS_LEFT_ALONE.inc()
            log.warning("endpoint_is_left_alone", endpoint_id=lane.endpoint.id)
        self._refusing[lane.endpoint] = lane
        if firsts := self._empty(lane):
            self._spawn(self._leave_bit_by_bit(firsts))
        after = lane.breaker.probe_at - now + EARLY
        asyncio.get_running_loop().call_later(after, self.wake, lane.endpoint)

    async def _leave(self, items: Sequence[Item]) -> None:
        await asyncio.gather(*map(self._deferrals.submit, items))

    async def _leave_bit_by_bit(self, items: Sequence[Item]) -> None:
        """So that nobody else's statements wait for hundreds of rows."""
        for first in range(0, len(items), BIT):
            await self._leave(items[first : first + BIT])
            if not self._stopping.is_set():
                await asyncio.sleep(BETWEEN_BITS)

    async def _pull(self, lane: Lane, wanted: int) -> None:
        try:
            found = await self._pulls.submit((lane.endpoint, wanted))
        finally:
            lane.pulling = False
        lane.pulled(found, wanted)
        if not found and not lane.breaker.closed and lane.idle:
            lane.breaker.rest()
            metrics.ENDPOINTS_LEFT_ALONE.dec()
        self._look_again(lane)

    async def _give_back(self, items: Sequence[Item]) -> None:
        """Let another notifier, or the next, make first attempts; when the broker is away, the
        sweeper will."""
        envelopes = [items[i : i + ENVELOPE] for i in range(0, len(items), ENVELOPE)]
        messages = [
            Outgoing(COMMANDS, DELIVERIES, encode(DELIVERIES, e).encode()) for e in envelopes
        ]
        try:
            await self._publisher.publish(messages)
        except Transient as error:
            log.warning("left_to_the_sweeper", deliveries=len(items), reason=str(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("dispatching_failed", exc_info=task.exception())


async def _defer(database: Database, items: list[Item]) -> Sequence[None]:
    await persist(defer, database, sorted(set(items)))
    return [None] * len(items)


async def _pull(database: Database, asked: list[tuple[Item, int]]) -> Sequence[list[Item]]:
    found = await persist(find_due, database, asked)
    return [found.get(endpoint, []) for endpoint, _ in asked]
