"""The notifier's wiring: everything it needs is built here, and closed in reverse order."""

import contextlib
from collections.abc import AsyncIterator

from services.notifier.attempts import Attempts, utc_now
from services.notifier.config import NotifierSettings
from services.notifier.dispatcher import Dispatcher
from services.notifier.handlers import DeliveryHandler, EventHandler
from services.notifier.replay import Replayer
from services.notifier.retention import Pruner
from services.notifier.sender import open_sender
from services.notifier.sweeper import Sweeper
from shared.broker import Consumer
from shared.dead_letters import DeadLetters
from shared.foundation import lay_foundation
from shared.lifecycle import App, Lifecycle
from shared.probe import serve_probe
from shared.repeat import Repeating
from shared.sealing import Seal
from shared.topology import NOTIFIER_DEAD, NOTIFIER_DELIVERIES, NOTIFIER_EVENTS

PRUNE_INTERVAL = 60.0
"""Seconds between looks for what is older than the retention."""
REPLAY_INTERVAL = 0.5
"""Seconds between steps of replays."""
RETRY_GRACE = 5.0
"""Seconds that a due retry's message may be late before the sweeper makes the attempt."""


def make_app(settings: NotifierSettings) -> App:
    """The service as its lifecycle runs it."""

    @contextlib.asynccontextmanager
    async def app(lifecycle: Lifecycle) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            amqp_url = settings.amqp_url.get_secret_value()
            base = await stack.enter_async_context(lay_foundation("notifier", settings, lifecycle))
            sender = await stack.enter_async_context(
                open_sender(
                    timeout=settings.webhook_timeout,
                    allowed=settings.reachable_networks,
                    connections=settings.webhook_in_flight,
                    allow_http=settings.webhook_allow_http,
                )
            )
            attempts = Attempts(
                database=base.database,
                relay=base.relay,
                sender=sender,
                seal=Seal(settings.sealing_keys),
                timeout=settings.webhook_timeout,
                delays=settings.webhook_retry_delays,
                disable_after=settings.webhook_disable_after,
            )
            dispatcher = Dispatcher(
                base.database,
                attempts,
                base.publisher,
                places=settings.webhook_in_flight,
                backlog_rate=settings.webhook_backlog_rate,
            )
            dead_letters = DeadLetters(base.publisher, NOTIFIER_DEAD)
            events = EventHandler(base.database, dispatcher, dead_letters)
            due = DeliveryHandler(
                base.database,
                dispatcher,
                base.publisher,
                dead_letters,
                settings.webhook_retry_delays,
            )
            sweeper = Sweeper(
                base.database,
                events,
                dispatcher,
                lost_after=settings.lost_after,
                retry_grace=RETRY_GRACE,
            )
            replayer = Replayer(base.database, dispatcher)
            pruner = Pruner(base.database, settings.webhook_retention, utc_now)
            consumers = [
                Consumer(
                    amqp_url,
                    queue,
                    handle,
                    name="notifier",
                    channels=settings.notifier_consumers,
                    prefetch=settings.notifier_prefetch,
                )
                for queue, handle in (
                    (NOTIFIER_EVENTS, events.handle),
                    (NOTIFIER_DELIVERIES, due.handle),
                )
            ]
            await stack.enter_async_context(
                serve_probe(
                    settings.probe_host,
                    settings.probe_port,
                    lifecycle,
                    lambda: {"consuming": all(consumer.connected for consumer in consumers)},
                )
            )
            await stack.enter_async_context(
                lifecycle.running(
                    settings.drain_timeout,
                    dispatcher=dispatcher,
                    events_consumer=consumers[0],
                    deliveries_consumer=consumers[1],
                    replayer=Repeating("replayer", replayer.run, REPLAY_INTERVAL),
                    pruner=Repeating("pruner", pruner.run, PRUNE_INTERVAL),
                    sweeper=Repeating("sweeper", sweeper.sweep, settings.notifier_sweep_interval),
                )
            )
            for consumer in consumers:
                await consumer.wait_connected(settings.start_timeout)
            yield

    return app
