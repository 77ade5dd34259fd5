"""What the notifier's consumers do with a message: what happened, and what is due."""

import asyncio
import math
import time
from collections.abc import Sequence

import structlog

from services.notifier.dispatcher import Dispatcher
from services.notifier.policy import rung_for
from services.notifier.store.opening import Target, look_up_targets, open_deliveries
from shared.batcher import Batcher
from shared.broker import Delivery, Outgoing, Publisher
from shared.db import Database
from shared.dead_letters import DeadLetters
from shared.errors import Malformed, Permanent
from shared.messages import DELIVERIES, EVENTS, Item, decode, encode, in_order
from shared.patience import persist
from shared.states import DeliveryStatus
from shared.topology import RETRIES, rung

log = structlog.get_logger()


class EventHandler:
    """notifier.events: make the deliveries that an event calls for, and hand them over."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        dead_letters: DeadLetters,
        max_batch: int = 500,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._dead_letters = dead_letters
        self._openings = Batcher(self._open, max_size=max_batch)

    async def handle(self, delivery: Delivery) -> None:
        """Deal with every event of the envelope; what cannot be goes to the dead queue, alone."""
        try:
            items = decode(delivery.body, EVENTS)
        except Malformed as error:
            await self._dead_letters.put(delivery.body, str(error))
            return
        for item, problem in zip(items, await self.tell(items), strict=True):
            match problem:
                case Permanent():
                    await self._dead_letters.put(encode(EVENTS, [item]).encode(), str(problem))
                case Exception():
                    raise problem

    async def tell(self, items: Sequence[Item]) -> list[Exception | None]:
        """Make the deliveries of events and have them attempted.

        Returns when they are committed, for no endpoint keeps an event's message waiting: of each
        event what is wrong with it, if something is.
        """
        problems: list[Exception | None] = []
        targets: dict[str, Target] = {}
        oldest = math.inf
        opened = await self._openings.submit_list(items)
        for item, found in zip(items, opened, strict=True):
            match found:
                case Exception():
                    problems.append(found)
                case None, _:
                    reason = f"there is no event {item.id} in account {item.account_id}"
                    problems.append(Malformed(reason))
                case list(deliveries), asked_at:
                    problems.append(None)
                    oldest = min(oldest, asked_at)
                    # One that is leased or scheduled is somebody else's, or the sweeper's in time.
                    targets |= {target.item.id: target for target in deliveries if target.wait <= 0}
        await self._dispatcher.offer(list(targets.values()), oldest)
        return problems

    async def _open(self, items: list[Item]) -> Sequence[tuple[list[Target] | None, float]]:
        asked_at = time.monotonic()
        opened = await persist(
            open_deliveries,
            self._database,
            in_order(items),
            lease=self._dispatcher.lease(),
            refusing=self._dispatcher.refusing(),
        )
        return [(opened[item.id], asked_at) for item in items]


class DeliveryHandler:
    """notifier.deliveries: have what has waited long enough attempted again."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        publisher: Publisher,
        dead_letters: DeadLetters,
        delays: Sequence[float],
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._delays = delays

    async def handle(self, delivery: Delivery) -> None:
        """Hand over every delivery of the envelope that is due; park those that are not."""
        try:
            items = decode(delivery.body, DELIVERIES)
        except Malformed as error:
            await self._dead_letters.put(delivery.body, str(error))
            return
        targets = await persist(look_up_targets, self._database, items)
        results = await asyncio.gather(
            *(self.again(target) for target in targets.values()), return_exceptions=True
        )
        for item in items:
            if item.by_hand and item.id in targets:
                self._dispatcher.probe(targets[item.id].endpoint, item)
        for target, result in zip(targets.values(), results, strict=True):
            match result:
                case Permanent():
                    body = encode(DELIVERIES, [target.item]).encode()
                    await self._dead_letters.put(body, str(result))
                case BaseException():
                    raise result

    async def again(self, target: Target) -> None:
        """See to it that `target` is attempted when it is due.

        Queues have fixed delays and schedules have jitter, so a message comes a little early: a
        long rest is waited for in a queue, a short one by a timer.
        """
        if target.wait > min(self._delays):
            key = rung(rung_for(target.wait, self._delays))
            parked = Outgoing(RETRIES, key, encode(DELIVERIES, [target.item]).encode())
            await persist(self._publisher.publish, [parked])
        elif target.wait > 0 or target.status is not DeliveryStatus.PENDING:
            self._dispatcher.wake(target.endpoint, target.wait)
        else:
            await self._dispatcher.offer([target])
