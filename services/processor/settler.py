"""From a reference to an outcome:

    claim (one commit) → ask the gateway, outside any transaction → settle (one commit)

All envelopes that the consumers hold share two batchers, so what is claimed or settled at one
moment is written by one statement. What the gateway keeps waiting holds up its own envelope's ack,
and nobody else's settlement. The process may die at any line: the message comes again, what was
claimed is asked about again with the same key, and what is settled is left alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Generic, overload

import structlog

from services.processor.gateways.base import Gateway, Outcome, Unknown
from services.processor.settlement import Answer, S, Settlement, StillUnknown
from services.processor.store.unsettled import mark_unknown
from services.processor.work import Work
from shared import metrics
from shared.batcher import Batcher
from shared.db import Database
from shared.errors import Malformed
from shared.messages import Item
from shared.outbox import OutboxRelay
from shared.patience import persist

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asking:
    """The gateway, and how much of it may be used at once."""

    gateway: Gateway
    timeout: float
    """Seconds after which an answer counts as unknown."""
    limit: asyncio.Semaphore

    @overload
    async def ask(self, name: str, question: Callable[[], Awaitable[Outcome]]) -> Answer: ...
    @overload
    async def ask(
        self, name: str, question: Callable[[], Awaitable[Outcome | None]]
    ) -> Answer | None: ...
    async def ask(
        self, name: str, question: Callable[[], Awaitable[Outcome | None]]
    ) -> Answer | None:
        """The gateway's answer to `question`, None if it has none to give; Unknown when it takes
        longer than `timeout`."""
        async with self.limit:
            asked_at = datetime.now(UTC)
            outcome: Outcome | None
            try:
                async with asyncio.timeout(self.timeout):
                    outcome = await question()
            except TimeoutError:
                outcome = Unknown(f"no answer within {self.timeout} s")
            except Exception as error:
                log.exception("gateway_failed", gateway=self.gateway.name)
                outcome = Unknown(f"the gateway's adapter failed: {type(error).__name__}")
        return None if outcome is None else Answer(outcome, name, asked_at, datetime.now(UTC))


@dataclass(slots=True)
class Settler(Generic[S]):
    """Claims, asks and settles one kind of work; shared by all its consumers and the janitor."""

    work: Work[S]
    database: Database
    relay: OutboxRelay
    asking: Asking
    max_batch: int
    _claims: Batcher[Item, S | None] = field(init=False)
    _answers: Batcher[tuple[S, Answer], None] = field(init=False)

    def __post_init__(self) -> None:
        self._claims = Batcher(self._claim, max_size=self.max_batch)
        self._answers = Batcher(self._settle, max_size=self.max_batch)

    async def process(self, item: Item) -> None:
        """Bring `item` to its outcome, or leave it unknown for the janitor.

        Returns when what is known is committed. Raises Permanent when it does not exist or cannot
        be written.
        """
        subject = await self._claims.submit(item)
        if subject is None:
            raise Malformed(f"nothing in {self.work.table} is {item.id} of {item.account_id}")
        if subject.status == "processing" and subject.unknown_since is None:
            answer = await self.asking.ask(self.work.question, partial(self._ask, subject))
            await self._answers.submit((subject, answer))

    async def ask_again(self, item: Item) -> Outcome:
        """Ask what became of work of unknown outcome, and settle it when the gateway says.

        If the gateway never heard of it, it is asked now what it was to be asked then, with the
        same key.
        """
        subject = (await persist(self.work.load, self.database, [item]))[item.id]
        answer = await self.asking.ask("lookup", partial(self.asking.gateway.lookup, item.id))
        if answer is None:
            answer = await self.asking.ask(self.work.question, partial(self._ask, subject))
        await self._answers.submit((subject, answer))
        return answer.outcome

    async def _ask(self, subject: S) -> Outcome:
        return await self.work.ask(self.asking.gateway, subject)

    async def _claim(self, items: list[Item]) -> Sequence[S | None]:
        ordered = sorted(set(items))
        loaded = await persist(self.work.load, self.database, ordered)
        pending = [
            loaded[item.id]
            for item in ordered
            if item.id in loaded and loaded[item.id].status == "pending"
        ]
        if pending:
            now = datetime.now(UTC)
            begun = [self.work.begun(subject, now) for subject in pending]
            messages = await persist(self.work.begin, self.database, begun, now)
            self.relay.offer(messages)
            # Whether this statement moved them or another processor did a moment ago, they are no
            # longer pending; and asking the gateway twice with one key is asking once.
            loaded |= {subject.id: subject for subject in begun}
        metrics.BATCH_SIZE.labels(f"claim {self.work.table}").observe(len(items))
        return [loaded.get(item.id) for item in items]

    async def _settle(self, answered: list[tuple[S, Answer]]) -> Sequence[None]:
        # One of each, for the same message may have come twice at once; and of two answers the one
        # that knows.
        known_last = sorted(answered, key=lambda a: not isinstance(a[1].outcome, Unknown))
        by_id = {subject.id: (subject, answer) for subject, answer in known_last}
        ordered = sorted(by_id.values(), key=lambda a: (a[0].account_id, a[0].id))
        await persist(self._write, ordered)
        metrics.BATCH_SIZE.labels(f"settle {self.work.table}").observe(len(answered))
        return [None] * len(answered)

    async def _write(self, answered: Sequence[tuple[S, Answer]]) -> None:
        # Decided anew with every try: what is written late has late times and late ids, so that
        # whoever has read up to a moment has seen all there was.
        now, name = datetime.now(UTC), self.asking.gateway.name
        decisions = [self.work.decide(subject, answer, name, now) for subject, answer in answered]
        settled = [d for d in decisions if isinstance(d, Settlement)]
        unknown = [d for d in decisions if isinstance(d, StillUnknown)]
        if settled:
            moved, messages = await self.work.settle(self.database, settled)
            self.relay.offer(messages)
            for settlement in settled:
                if settlement.subject.id in moved:
                    metrics.SETTLED.labels(self.work.table, settlement.subject.status).inc()
        if unknown:
            await mark_unknown(self.database, self.work.table, unknown)
            metrics.UNKNOWN.labels(self.work.table).inc(len(unknown))
