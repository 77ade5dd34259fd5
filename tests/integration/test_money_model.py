"""A model of payments and refunds, in any order, twice, at once and interrupted.

Hypothesis plays the world: clients that repeat themselves, a broker that delivers any message any
number of times, a gateway that approves, declines and falls silent, processes that die between two
statements. The model is a few dictionaries; after every step the database must agree with it, and
at the end every rule of `./florin verify` must hold.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from cli.verify import examine
from services.api.accept import Acceptor, IdempotencyMismatch
from services.api.reserve import RefundRefused, Reserved, Reserver
from services.processor.gateways.base import Approved, Declined, Outcome, Unknown
from shared.broker import Publisher
from shared.db import open_database
from shared.messages import Item
from shared.outbox import OutboxRelay
from shared.states import PaymentStatus
from tests.conftest import EMPTY
from tests.integration.test_accept import new_payment, with_key
from tests.settling import (
    PAYMENT_WORK,
    REFUND_WORK,
    Gateway,
    PaymentSettler,
    RefundSettler,
    make_handler,
    make_janitor,
    make_settler,
    message,
    new_refund,
)
from tests.system import Urls

T = TypeVar("T")
AMOUNT = 1000
amounts = st.none() | st.integers(1, AMOUNT + 1)
outcomes = st.sampled_from(
    [Approved("ref"), Approved("ref"), Declined("no", "No."), Unknown("silence")]
)
picks = st.integers(0, 1000)
keys = st.none() | st.sampled_from(["a", "b", "c"])


@dataclasses.dataclass
class Held:
    """What the model knows of one payment."""

    status: str = "pending"
    refunds: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)

    @property
    def left(self) -> int:
        taken = sum(amount for amount, status in self.refunds.values() if status != "failed")
        return AMOUNT - taken


class World:
    """Two processes of each kind on one database, in an event loop of their own."""

    def __init__(self, urls: Urls) -> None:
        self.seen: Counter[str] = Counter()
        self.urls = urls
        self.loop = asyncio.new_event_loop()
        self.database = self.run(open_database(urls.database, service="model", size=8, wait=5))
        self.publisher = Publisher(urls.amqp, name="model")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.publisher.close())
        self.run(self.database.close())
        self.loop.close()


class Money(RuleBasedStateMachine):
    """The world's moves and what must be true after each."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @initialize()
    def begin(self) -> None:
        database, publisher = self.world.database, self.world.publisher
        for statement in EMPTY:
            self.world.run(database.execute(statement))
        self.gateway = Gateway()
        self.held: dict[str, Held] = {}
        self.of_key: dict[str, str] = {}
        self.of_refund_key: dict[str, tuple[str, bytes]] = {}
        self.of_refund: dict[str, str] = {}
        relay = OutboxRelay(database, publisher)
        self.acceptors = [Acceptor(database, relay, 200, 2000) for _ in range(2)]
        self.reservers = [Reserver(database, relay, 200, 2000) for _ in range(2)]
        self.payment_settlers: list[PaymentSettler] = [
            make_settler(PAYMENT_WORK, database, publisher, self.gateway) for _ in range(2)
        ]
        self.refund_settlers: list[RefundSettler] = [
            make_settler(REFUND_WORK, database, publisher, self.gateway) for _ in range(2)
        ]

    @rule(key=keys, times=st.integers(1, 3))
    def pay(self, key: str | None, times: int) -> None:
        """A client asks for a payment, perhaps several times at once."""
        new = new_payment(amount=AMOUNT) if key is None else with_key(key, amount=AMOUNT)
        requests = [new] + [
            replace(new, id=new_payment().id) for _ in range(times - 1 if key else 0)
        ]
        answers = self.world.run(
            _all(self.acceptors[n % 2].accept(r) for n, r in enumerate(requests))
        )
        [id_] = {answer.payment.id for answer in answers}
        if key is not None:
            assert self.of_key.setdefault(key, id_) == id_
        self.held.setdefault(id_, Held())

    @rule(key=keys)
    def pay_and_see_it_completed(self, key: str | None) -> None:
        """What happens nearly always, and what refunds need."""
        self.pay(key, 1)
        newest = list(self.held)[-1]
        self.gateway.outcomes.setdefault(newest, Approved("ref"))
        self.settle_payment(len(self.held) - 1, Approved("ref"), 1)

    @precondition(lambda self: self.held)
    @rule(pick=picks, outcome=outcomes, times=st.integers(1, 3))
    def settle_payment(self, pick: int, outcome: Outcome, times: int) -> None:
        """A payment's message comes, perhaps several times at once, to any process."""
        of = self._payment(pick)
        held = self.held[of.id]
        first = of.id not in self.gateway.known
        self.gateway.outcomes.setdefault(of.id, outcome)
        handlers = [make_handler(s, self.world.publisher) for s in self.payment_settlers]
        self.world.run(_all(handlers[n % 2].handle(message([of])) for n in range(times)))
        if first or held.status == "pending":
            held.status = _as_status(self.gateway.outcomes[of.id])
        self._nothing_is_asked_twice_under_another_key()

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def die_after_claiming(self, pick: int) -> None:
        """A processor takes a payment, and dies before it asks anybody."""
        of = self._payment(pick)
        self.world.run(self.payment_settlers[0]._move([of]))
        held = self.held[of.id]
        if held.status == "pending":
            held.status = "processing"

    @precondition(lambda self: self._completed())
    @rule(pick=picks, amount=amounts, key=keys, times=st.integers(1, 3))
    def refund(self, pick: int, amount: int | None, key: str | None, times: int) -> None:
        """A client asks for a refund; without a key, `times` different ones at once."""
        completed = self._completed()
        self._refund(completed[pick % len(completed)], amount, key, times)

    @precondition(lambda self: self.held)
    @rule(pick=picks, amount=amounts)
    def refund_of_whatever(self, pick: int, amount: int | None) -> None:
        """A client asks for a refund of a payment, completed or not."""
        self._refund(self._payment(pick).id, amount, None, 1)

    def _refund(self, id_: str, amount: int | None, key: str | None, times: int) -> None:
        of = Item("acct_default", id_)
        requests = [new_refund(of, amount, key) for _ in range(times)]
        results = self.world.run(
            _all((self.reservers[n % 2].reserve(r) for n, r in enumerate(requests)), errors=True)
        )
        held = self.held[of.id]
        made = {r.refund.id: r.refund for r in results if isinstance(r, Reserved)}
        if key is not None and key in self.of_refund_key:
            id_, fingerprint = self.of_refund_key[key]
            same = fingerprint == requests[0].request_fingerprint
            assert all(
                r.refund.id == id_
                if isinstance(r, Reserved)
                else isinstance(r, IdempotencyMismatch)
                for r in results
            )
            assert bool(made) == same
            return
        allowed = _allowed(held, amount, 1 if key else times)
        assert [r.amount for r in made.values()] == allowed, (held, results)
        assert all(isinstance(r, Reserved | RefundRefused) for r in results), results
        for refund in made.values():
            held.refunds[refund.id] = (refund.amount, "pending")
            self.of_refund[refund.id] = of.id
            if key is not None:
                assert requests[0].request_fingerprint is not None
                self.of_refund_key[key] = (refund.id, requests[0].request_fingerprint)

    @precondition(lambda self: self.of_refund)
    @rule(pick=picks, outcome=outcomes, times=st.integers(1, 3))
    def settle_refund(self, pick: int, outcome: Outcome, times: int) -> None:
        """A refund's message comes, perhaps several times at once, to any process."""
        of = Item("acct_default", list(self.of_refund)[pick % len(self.of_refund)])
        self.gateway.outcomes.setdefault(of.id, outcome)
        handlers = [make_handler(s, self.world.publisher) for s in self.refund_settlers]
        self.world.run(
            _all(handlers[n % 2].handle(message([of], REFUND_WORK)) for n in range(times))
        )
        refunds = self.held[self.of_refund[of.id]].refunds
        amount, status = refunds[of.id]
        if status == "pending":
            refunds[of.id] = (amount, _as_status(self.gateway.outcomes[of.id]))

    @precondition(lambda self: self.of_refund)
    @rule()
    def the_newest_refund_is_met_with_silence(self) -> None:
        """The gateway does not say whether the money was given back."""
        self.settle_refund(len(self.of_refund) - 1, Unknown("silence"), 1)

    @rule(outcome=st.sampled_from([Approved("ref"), Declined("no", "No."), Unknown("still")]))
    def the_gateway_breaks_its_silence(self, outcome: Outcome) -> None:
        """The janitors ask again, and hear what became of all that was unknown."""
        outcomes = self.gateway.outcomes
        outcomes |= {id_: outcome for id_, o in outcomes.items() if isinstance(o, Unknown)}
        later = datetime.now(UTC) + timedelta(days=2)
        for settler in (self.payment_settlers[1], self.refund_settlers[1]):
            janitor: Any = make_janitor(self.world.database, settler, self.world.urls.amqp)
            self.world.run(janitor.ask_again_once(later))
        for id_, held in self.held.items():
            if held.status == "processing" and id_ in self.gateway.known:
                held.status = _as_status(outcomes[id_])
            for refund, (amount, status) in held.refunds.items():
                if status == "processing":
                    held.refunds[refund] = (amount, _as_status(outcomes[refund]))

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        if not hasattr(self, "held"):
            return
        rows = self.world.run(
            self.world.database.fetch(
                "SELECT id, status, amount - amount_refunded AS left FROM payments"
            )
        )
        assert {row["id"]: (row["status"], row["left"]) for row in rows} == {
            id_: (held.status, held.left) for id_, held in self.held.items()
        }
        rows = self.world.run(self.world.database.fetch("SELECT id, amount, status FROM refunds"))
        assert {row["id"]: (row["amount"], row["status"]) for row in rows} == {
            id_: refund for held in self.held.values() for id_, refund in held.refunds.items()
        }

    @invariant()
    def it_is_seen_what_was_reached(self) -> None:
        for held in getattr(self, "held", {}).values():
            self.world.seen[f"payment {held.status}"] += 1
            self.world.seen.update(f"refund {status}" for _, status in held.refunds.values())

    def teardown(self) -> None:
        """Every rule about money holds, whatever was played."""
        if hasattr(self, "held"):
            findings = self.world.run(examine(self.world.database, grace=0))
            assert [f for f in findings if f.violations and f.invariant <= 5] == []

    def _payment(self, pick: int) -> Item:
        return Item("acct_default", list(self.held)[pick % len(self.held)])

    def _completed(self) -> list[str]:
        return [id_ for id_, held in self.held.items() if held.status == "completed"]

    def _nothing_is_asked_twice_under_another_key(self) -> None:
        assert set(self.gateway.asked) <= self.held.keys() | self.of_refund.keys()


async def _all(work: Any, *, errors: bool = False) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=errors)


def _as_status(outcome: Outcome) -> str:
    match outcome:
        case Approved():
            return "completed"
        case Declined():
            return "failed"
        case Unknown():
            return "processing"


def _allowed(held: Held, amount: int | None, times: int) -> list[int]:
    """The amounts of the refunds that may be made of `times` requests, in their order."""
    left = held.left if held.status == "completed" else 0
    made = []
    for _ in range(times):
        wanted = left if amount is None else amount
        if 0 < wanted <= left:
            made.append(wanted)
            left -= wanted
    return made


async def test_no_order_of_events_breaks_the_books(urls: Urls) -> None:
    def play() -> None:
        world = World(urls)

        def machine() -> Money:
            return Money(world)

        try:
            run_state_machine_as_test(
                machine,  # type: ignore[arg-type]  # a factory will do
                settings=settings(
                    max_examples=100,
                    stateful_step_count=25,
                    deadline=None,
                    derandomize=True,  # the same games each time: what fails here fails again
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            world.close()
        reached = {f"{kind} {s}" for kind in ("payment", "refund") for s in PaymentStatus}
        assert set(world.seen) == reached, f"the model must play every state: {world.seen}"

    await asyncio.to_thread(play)
