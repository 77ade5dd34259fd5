"""The processor's wiring: everything it needs is built here, and closed in reverse order."""

import contextlib
from collections.abc import AsyncIterator

from services.processor.config import ProcessorSettings
from services.processor.gateways.sandbox import SandboxGateway
from services.processor.handler import PaymentHandler, Settler
from services.processor.janitor import Janitor
from shared.broker import Consumer
from shared.db import open_database
from shared.dead_letters import DeadLetters
from shared.lifecycle import App, Lifecycle
from shared.outbox import open_relay
from shared.probe import serve_probe
from shared.repeat import Repeating
from shared.schema import require_schema
from shared.topology import PROCESSOR_DEAD, PROCESSOR_PAYMENTS


def make_app(settings: ProcessorSettings) -> App:
    """The service as its lifecycle runs it."""

    @contextlib.asynccontextmanager
    async def app(lifecycle: Lifecycle) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            amqp_url = settings.amqp_url.get_secret_value()
            database = await open_database(
                settings.database_url.get_secret_value(),
                service="processor",
                size=settings.database_pool,
                wait=settings.start_timeout,
            )
            stack.push_async_callback(database.close)
            await require_schema(database)

            relay, publisher = await stack.enter_async_context(
                open_relay(
                    database,
                    amqp_url,
                    lifecycle,
                    service="processor",
                    sweep_interval=settings.outbox_sweep_interval,
                    drain_timeout=settings.drain_timeout,
                )
            )
            settler = Settler(
                database=database,
                relay=relay,
                gateway=SandboxGateway(
                    latency_min=settings.sandbox_latency_min,
                    latency_max=settings.sandbox_latency_max,
                    failure_rate=settings.sandbox_failure_rate,
                ),
                gateway_timeout=settings.gateway_timeout,
                gateway_concurrency=settings.gateway_concurrency,
                max_batch=settings.batch,
            )
            handler = PaymentHandler(settler, DeadLetters(publisher, PROCESSOR_DEAD))
            consumer = Consumer(
                amqp_url,
                PROCESSOR_PAYMENTS,
                handler.handle,
                name="processor",
                channels=settings.consumers,
                prefetch=settings.prefetch,
            )
            janitor = Janitor(
                database,
                settler,
                amqp_url,
                lost_after=settings.lost_after,
                ask_again_min=settings.ask_again_min,
                ask_again_max=settings.ask_again_max,
            )
            await stack.enter_async_context(
                serve_probe(
                    settings.probe_host,
                    settings.probe_port,
                    lifecycle,
                    lambda: {"consuming": consumer.connected},
                )
            )
            for name, work in (
                ("janitor", Repeating("janitor", janitor.clean, settings.janitor_interval)),
                ("payments consumer", consumer),
            ):
                await stack.enter_async_context(
                    lifecycle.running(name, work, settings.drain_timeout)
                )
            await consumer.wait_connected(settings.start_timeout)
            yield

    return app
