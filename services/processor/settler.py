"""From a reference to an outcome:

    claim (one commit) → ask the gateway, outside any transaction → settle (one commit)

All envelopes that the consumers hold share one batcher, so what is claimed and what is settled at
one moment is written by one statement. What the gateway keeps waiting holds up its own envelope's
ack, and nobody else's settlement. The process may die at any line: the message comes again, what
was claimed is asked about again with the same key, and what is settled is left alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Generic, overload

import structlog
from msgspec import Struct

from services.processor.gateways.base import Gateway, Outcome, Unknown
from services.processor.settlement import Answer, Move, S, StillUnknown
from services.processor.store.unsettled import mark_unknown
from services.processor.work import Work
from shared import metrics
from shared.batcher import SPACING, Batcher
from shared.db import Database
from shared.errors import Malformed
from shared.messages import Item, in_order
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


class Answered(Struct, Generic[S], frozen=True):
    """What the gateway was asked about, and what it said."""

    subject: S
    answer: Answer


@dataclass(slots=True)
class Settler(Generic[S]):
    """Claims, asks and settles one kind of work; shared by all its consumers and the janitor."""

    work: Work[S]
    database: Database
    relay: OutboxRelay
    asking: Asking
    max_batch: int
    _steps: Batcher[Item | Answered[S], S | None] = field(init=False)

    def __post_init__(self) -> None:
        # No rest: each payment comes here twice, and somebody waits both times. Answers go ahead:
        # in a backlog, all that is held would otherwise be begun before anything is settled. They
        # come one by one, and are written with the next envelope's items: were they written alone
        # just before it came, it would have to wait.
        self._steps = Batcher(
            self._move, max_size=self.max_batch, max_writes=2, spacing=2 * SPACING, rest=0.0
        )

    async def process(self, items: Sequence[Item]) -> list[BaseException | None]:
        """Bring `items` to their outcomes, or leave them unknown for the janitor.

        Returns when what is known is committed: of each what is wrong with it, if something is;
        Permanent when it does not exist or cannot be written.
        """
        claimed = await self._steps.submit_list(items)
        return await asyncio.gather(
            *(self._finish(item, found) for item, found in zip(items, claimed, strict=True)),
            return_exceptions=True,
        )

    async def _finish(self, item: Item, claimed: S | Exception | None) -> None:
        if isinstance(claimed, Exception):
            raise claimed
        if claimed is None:
            raise Malformed(f"nothing in {self.work.table} is {item.id} of {item.account_id}")
        if claimed.status == "processing" and claimed.unknown_since is None:
            answer = await self.asking.ask(self.work.question, partial(self._ask, claimed))
            await self._steps.submit(Answered(claimed, answer), ahead=True)

    async def ask_again(self, item: Item) -> Outcome:
        """Ask what became of work of unknown outcome, and settle it when the gateway says.

        If the gateway never heard of it, it is asked now what it was to be asked then, with the
        same key.
        """
        subject = (await persist(self.work.load, self.database, [item]))[item.id]
        answer = await self.asking.ask("lookup", partial(self.asking.gateway.lookup, item.id))
        if answer is None:
            answer = await self.asking.ask(self.work.question, partial(self._ask, subject))
        await self._steps.submit(Answered(subject, answer), ahead=True)
        return answer.outcome

    async def _ask(self, subject: S) -> Outcome:
        return await self.work.ask(self.asking.gateway, subject)

    async def _move(self, steps: Sequence[Item | Answered[S]]) -> Sequence[S | None]:
        """Claim what is new and settle what is answered; returns what was claimed."""
        items = in_order(step for step in steps if isinstance(step, Item))
        answered = [step for step in steps if isinstance(step, Answered)]
        # One of each, for the same message may have come twice at once; and of two answers the one
        # that knows.
        answered.sort(key=lambda step: not isinstance(step.answer.outcome, Unknown))
        by_id = {step.subject.id: step for step in answered}
        claimed = await persist(self._write, items, by_id.values())
        metrics.BATCH_SIZE.labels(f"move {self.work.table}").observe(len(steps))
        return [claimed.get(step.id) if isinstance(step, Item) else None for step in steps]

    async def _write(self, items: Sequence[Item], answered: Iterable[Answered[S]]) -> dict[str, S]:
        # Decided anew with every try: what is written late has late times and late ids, so that
        # whoever has read up to a moment has seen all there was.
        claimed = await self.work.load(self.database, items) if items else {}
        now, name = datetime.now(UTC), self.asking.gateway.name
        begun: list[Move[S]] = [
            self.work.begin(subject, now)
            for subject in claimed.values()
            if subject.status == "pending"
        ]
        # Whether the statement moves them or another processor did a moment ago, they are no longer
        # pending; and asking the gateway twice with one key is asking once.
        claimed |= {move.subject.id: move.subject for move in begun}
        decisions: list[Move[S] | StillUnknown[S]] = []
        decisions += begun
        decisions += [self.work.decide(step.subject, step.answer, name, now) for step in answered]
        # Whoever writes at the same time locks rows in the same order.
        decisions.sort(key=lambda one: (one.subject.account_id, one.subject.id))
        moves = [decision for decision in decisions if isinstance(decision, Move)]
        unknown = [decision for decision in decisions if isinstance(decision, StillUnknown)]
        if moves:
            moved, messages = await self.work.move(self.database, moves)
            self.relay.offer(messages)
            for move in moves:
                if move.subject.id in moved and move.subject.processed_at is not None:
                    metrics.SETTLED.labels(self.work.table, move.subject.status).inc()
        if unknown:
            await mark_unknown(self.database, self.work.table, unknown)
            metrics.UNKNOWN.labels(self.work.table).inc(len(unknown))
        return claimed
