"""The processor's wiring: everything it needs is built here, and closed in reverse order."""

import contextlib
from collections.abc import AsyncIterator

from services.processor.config import ProcessorSettings
from services.processor.gateways.sandbox import SandboxGateway
from services.processor.handler import PaymentHandler, Settler
from services.processor.janitor import Janitor
from shared.broker import Consumer
from shared.dead_letters import DeadLetters
from shared.foundation import lay_foundation
from shared.lifecycle import App, Lifecycle
from shared.probe import serve_probe
from shared.repeat import Repeating
from shared.topology import PROCESSOR_DEAD, PROCESSOR_PAYMENTS


def make_app(settings: ProcessorSettings) -> App:
    """The service as its lifecycle runs it."""

    @contextlib.asynccontextmanager
    async def app(lifecycle: Lifecycle) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            amqp_url = settings.amqp_url.get_secret_value()
            base = await stack.enter_async_context(lay_foundation("processor", settings, lifecycle))
            settler = Settler(
                database=base.database,
                relay=base.relay,
                gateway=SandboxGateway(
                    latency_min=settings.sandbox_latency_min,
                    latency_max=settings.sandbox_latency_max,
                    failure_rate=settings.sandbox_failure_rate,
                ),
                gateway_timeout=settings.gateway_timeout,
                gateway_concurrency=settings.gateway_concurrency,
                max_batch=settings.batch,
            )
            handler = PaymentHandler(settler, DeadLetters(base.publisher, PROCESSOR_DEAD))
            consumer = Consumer(
                amqp_url,
                PROCESSOR_PAYMENTS,
                handler.handle,
                name="processor",
                channels=settings.consumers,
                prefetch=settings.prefetch,
            )
            janitor = Janitor(
                base.database,
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
