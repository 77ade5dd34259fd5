"""Who is attempted next: one lane for each endpoint, and a bounded number of places for all.

    first attempts ─► lane ─┐
                            ├─► a place ─► attempt
    due, from Postgres ─► lane ─┘

Consumers hand over what is committed and ack at once, so that no queue waits for an endpoint. What
a lane does not take stays in Postgres, due, and is pulled in its order when the endpoint has room.
A process that dies loses no delivery: the sweeper finds what it had. What waited here claimed has
spent its first attempt.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from random import random
from typing import Any, Final

import structlog

from services.notifier.attempt import Claim
from services.notifier.attempts import Attempts
from services.notifier.lane import Lane
from services.notifier.lanes import Lanes
from services.notifier.policy import Delivered
from services.notifier.store.backlog import defer, find_due, give_up_claims
from services.notifier.store.opening import Target
from services.notifier.window import QUICK
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

MOST_CLAIMED: Final = 2000
"""First attempts that wait here claimed, with what they need; the rest is claimed at its turn."""
BIT: Final = 20
BETWEEN_BITS: Final = 0.05
"""What a closed lane leaves to the table at a time, and seconds between."""
ENVELOPE: Final = 100
"""Deliveries given back in one message."""
EARLY: Final = 0.005
"""Seconds by which a timer may be early, by the database's clock or by that of an event loop which
counts whole milliseconds."""


class Dispatcher:
    """Attempts what is offered, and what is due, as the lanes have it."""

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
        self._clock = clock
        self._lanes = Lanes(places, backlog_rate)
        self._database = database
        self._claims: dict[str, Claim] = {}
        """What waits here and was claimed when it was opened, by delivery."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._deferrals = Batcher[tuple[Item, datetime | None], None](
            lambda asked: _defer(database, asked), max_size=500
        )
        self._pulls = Batcher[tuple[Item, int], list[Item]](
            lambda asked: _pull(database, asked), max_size=100
        )
        self._timers = 0
        self._coming_back = False
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()

    def lease(self) -> float | None:
        """Seconds for which first attempts are to be claimed when they are opened; None when so
        many wait that it is early to, and when nothing is begun any more."""
        may_claim = len(self._claims) < MOST_CLAIMED and not self._stopping.is_set()
        return self._attempts.lease if may_claim else None

    async def give_up_old_claims(self) -> None:
        """Take back the claims of what has waited for half of its lease, and goes on waiting: it is
        claimed at its turn, and no number is spent."""
        before = time.monotonic() - self._attempts.lease / 2
        old = [claim for claim in self._claims.values() if claim.asked_at < before]
        if not old:
            return
        attempts = [claim.attempt for claim in old]
        await give_up_claims(
            self._database, {Item(a.account_id, a.delivery_id): a.lease_until for a in attempts}
        )
        # What began meanwhile has renewed its claim, before or after: both end the same way.
        for claim in old:
            if self._claims.get(claim.attempt.delivery_id) is claim:
                del self._claims[claim.attempt.delivery_id]

    async def offer(self, targets: Sequence[Target], asked_at: float = 0.0) -> None:
        """Take deliveries in hand; returns when nothing of them depends on the caller any more.

        What was never attempted waits in its lane, or, where that is full or closed, in the table.
        What is claimed was asked for at `asked_at`, in monotonic seconds.
        """
        for target in targets:
            if target.attempt is not None:
                self._claims[target.item.id] = Claim(target.attempt, asked_at)
        if self._stopping.is_set():
            await self._give_back([target.item for target in targets])
            return
        turned_away, now = [], self._clock()
        for target in targets:
            lane = self._lanes.of(target.endpoint)
            if target.status is not DeliveryStatus.PENDING:
                self._lanes.fall_behind(lane)
            elif not self._lanes.take_in(lane, target.item, now):
                turned_away.append(target)
        self._pump()
        if turned_away:
            await self._leave([target.item for target in turned_away])
            self.wake_all({target.endpoint for target in turned_away})

    def refusing(self) -> list[Item]:
        """The endpoints whose first attempts must wait in the table: they may be written there as
        due at once, and need not be offered."""
        return list(self._lanes.refusing())

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
                self._lanes.fall_behind(self._lanes.of(endpoint))
            self._pump()

    def probe(self, endpoint: Item, item: Item | None = None) -> None:
        """See to what is due at an endpoint now, `item` first, also where a breaker holds it off: a
        person has asked for it."""
        if self._stopping.is_set():
            return
        lane = self._lanes.of(endpoint)
        lane.breaker.probe(self._clock())
        if item is not None:
            lane.put_first(item)
        self.wake(endpoint)

    async def run(self) -> None:
        """Attempt what is offered and due, until `stop`; then finish what is under way, and give
        back what waits."""
        await self._stopping.wait()
        if waiting := self._lanes.empty_all():
            self._spawn(self._give_back(waiting))
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    async def idle(self) -> None:
        """Return when nothing is under way, waits here, or is known to be due soon, but for what
        is left alone by a breaker."""
        while self._tasks or self._timers or not self._lanes.are_idle:
            self._changed.clear()
            await self._changed.wait()

    def _ring(self, endpoint: Item) -> None:
        self._timers -= 1
        self.wake(endpoint)
        self._changed.set()

    def _pump(self) -> None:
        """Begin all that may begin, and pull where there is room."""
        if self._stopping.is_set():
            return
        now = self._clock()
        for lane, item in self._lanes.begin(now):
            self._spawn(self._attempt(lane, item, now))
        for lane, wanted in self._lanes.pulls(now):
            self._spawn(self._pull(lane, wanted))
        held_up = self._lanes.held_up(now)
        if held_up is not None and not self._coming_back:
            self._coming_back = True
            asyncio.get_running_loop().call_later(held_up, self._resume)
        metrics.WEBHOOKS_UNDER_WAY.set(self._lanes.under_way)

    def _resume(self) -> None:
        self._coming_back = False
        self._lanes.resume()
        self._pump()

    async def _attempt(self, lane: Lane, item: Item, began: float) -> None:
        finished = None
        try:
            finished = await self._attempts.attempt(item, self._claims.pop(item.id, None))
        except Exception:  # of one delivery; the table has it, and the sweeper comes by
            log.exception("attempt_failed", delivery_id=item.id)
        finally:
            # The endpoint has answered: it may be sent the next while this is written down.
            self._lanes.ended(lane, item)
        if finished is not None and finished.result.sent:
            self._learn(lane, isinstance(finished.verdict, Delivered), began)
        self._lanes.line_up(lane)
        self._pump()
        if finished is not None:
            try:
                await self._attempts.record(finished)
            except Exception:  # the lease runs out, and the attempt is written down as lost
                log.exception("attempt_not_recorded", delivery_id=item.id)

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
        if firsts := self._lanes.empty(lane):
            self._spawn(self._leave_bit_by_bit(firsts))
        after = lane.breaker.probe_at - now + EARLY
        asyncio.get_running_loop().call_later(after, self.wake, lane.endpoint)

    async def _leave(self, items: Sequence[Item]) -> None:
        await asyncio.gather(
            *(self._deferrals.submit((item, self._let_go(item))) for item in items)
        )

    def _let_go(self, item: Item) -> datetime | None:
        """Forget a claim; returns the end of its lease."""
        claim = self._claims.pop(item.id, None)
        return claim.attempt.lease_until if claim else None

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
        self._lanes.line_up(lane)
        self._pump()

    async def _give_back(self, items: Sequence[Item]) -> None:
        """Let another notifier, or the next, make first attempts; when the broker is away, the
        sweeper will."""
        claimed = {item: until for item in items if (until := self._let_go(item)) is not None}
        envelopes = [items[i : i + ENVELOPE] for i in range(0, len(items), ENVELOPE)]
        messages = [
            Outgoing(COMMANDS, DELIVERIES, encode(DELIVERIES, e).encode()) for e in envelopes
        ]
        try:
            if claimed:
                await give_up_claims(self._database, claimed)
        except Transient as error:
            log.warning("left_to_their_leases", deliveries=len(claimed), reason=str(error))
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


async def _defer(database: Database, asked: list[tuple[Item, datetime | None]]) -> Sequence[None]:
    await persist(defer, database, dict(asked))
    return [None] * len(asked)


async def _pull(database: Database, asked: list[tuple[Item, int]]) -> Sequence[list[Item]]:
    found = await persist(find_due, database, asked)
    return [found.get(endpoint, []) for endpoint, _ in asked]
