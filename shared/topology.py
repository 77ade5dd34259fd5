"""Every exchange, queue and binding of Florin: described here, applied by `./florin topology`.

Names start with their reader's service, so that the management UI reads as the architecture.
Services only look queues up. Applying is idempotent; an argument that changed is an error that
names the queue, because RabbitMQ cannot change a queue that exists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiormq.exceptions import AMQPError, ChannelPreconditionFailed

from shared.broker import BrokerUnavailable, connect
from shared.errors import Misconfigured

COMMANDS: Final = "commands"
EVENTS: Final = "events"
RETRIES: Final = "retries"
DEAD: Final = "dead"
UNROUTABLE: Final = "unroutable"

PROCESSOR_PAYMENTS: Final = "processor.payments"
PROCESSOR_REFUNDS: Final = "processor.refunds"
PROCESSOR_DEAD: Final = "processor.dead"
NOTIFIER_EVENTS: Final = "notifier.events"
NOTIFIER_DELIVERIES: Final = "notifier.deliveries"
NOTIFIER_DEAD: Final = "notifier.dead"

DELIVERY_LIMIT: Final = 20
"""Returns of one message to its queue before it is dead-lettered. Always positive: what -1 and
absence mean differs between RabbitMQ 3.10, 4.0 and 4.3. Attempts at delivering webhooks are
counted in Postgres, not here."""

REASON_HEADER: Final = "florin-reason"
"""Why a message is in a dead queue. Not x-death: a client may forge that by publishing again."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, the bindings that feed it, and where its dead letters go."""

    name: str
    exchange: str
    routing_key: str
    dead_exchange: str | None = None
    dead_routing_key: str | None = None
    ttl_ms: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Queue arguments as AMQP knows them."""
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        if self.dead_exchange is not None:
            arguments |= {
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": self.dead_exchange,
                "x-dead-letter-routing-key": self.dead_routing_key,
                # At-least-once dead-lettering silently degrades without reject-publish.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        if self.ttl_ms is not None:
            arguments["x-message-ttl"] = self.ttl_ms
        return arguments


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole of what the broker must hold."""

    exchanges: Mapping[str, str]
    queues: Sequence[Queue]
    alternate: Mapping[str, Any] = field(default_factory=lambda: {"alternate-exchange": UNROUTABLE})


def retry_queue(delay: float) -> str:
    """The name of the queue in which failed attempts wait `delay` seconds: `notifier.retry.5s`."""
    return f"notifier.retry.{rung(delay)}"


def rung(delay: float) -> str:
    """A delay as people write it: 5s, 5m, 2h; fractions of a second in milliseconds, 250ms."""
    if delay != int(delay):
        return f"{round(delay * 1000)}ms"
    seconds = int(delay)
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def describe(retry_delays: Sequence[float]) -> Topology:
    """The topology for a retry schedule: one queue for each distinct delay, one TTL each."""
    work = [
        Queue(PROCESSOR_PAYMENTS, COMMANDS, "payments", DEAD, PROCESSOR_DEAD),
        Queue(PROCESSOR_REFUNDS, COMMANDS, "refunds", DEAD, PROCESSOR_DEAD),
        Queue(NOTIFIER_EVENTS, EVENTS, "#", DEAD, NOTIFIER_DEAD),
        Queue(NOTIFIER_DELIVERIES, COMMANDS, "deliveries", DEAD, NOTIFIER_DEAD),
    ]
    waiting = [
        Queue(retry_queue(delay), RETRIES, rung(delay), COMMANDS, "deliveries", int(delay * 1000))
        for delay in sorted(set(retry_delays))
    ]
    last = [
        Queue(PROCESSOR_DEAD, DEAD, PROCESSOR_DEAD),
        Queue(NOTIFIER_DEAD, DEAD, NOTIFIER_DEAD),
        Queue(UNROUTABLE, UNROUTABLE, ""),
    ]
    exchanges = {COMMANDS: "direct", EVENTS: "topic", RETRIES: "direct", DEAD: "direct"}
    return Topology(exchanges={UNROUTABLE: "fanout"} | exchanges, queues=work + waiting + last)


async def apply(url: str, topology: Topology) -> None:
    """Declare what is missing. Raises Misconfigured when something exists with other arguments."""
    connection = await connect(url, name="florin topology")
    subject = "exchange"
    try:
        channel = await connection.channel()
        for name, kind in topology.exchanges.items():
            subject = f"exchange {name}"
            await channel.declare_exchange(
                name,
                kind,
                durable=True,
                arguments=None if name == UNROUTABLE else dict(topology.alternate),
            )
        for queue in topology.queues:
            subject = f"queue {queue.name}"
            declared = await channel.declare_queue(
                queue.name, durable=True, arguments=queue.arguments
            )
            await declared.bind(queue.exchange, queue.routing_key)
    except ChannelPreconditionFailed as error:
        raise Misconfigured(
            f"the {subject} exists with other arguments ({error}). RabbitMQ cannot change it:"
            " drain and delete it (its work is rebuilt from Postgres), then apply again"
        ) from None
    except AMQPError as error:
        raise BrokerUnavailable(f"the {subject} could not be declared: {error}") from None
    finally:
        await connection.close()
