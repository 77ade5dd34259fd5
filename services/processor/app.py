"""The processor's wiring: everything it needs is built here, and closed in reverse order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.processor.config import ProcessorSettings
from services.processor.folding import Folder
from services.processor.gateways.sandbox import SandboxGateway
from services.processor.handler import EnvelopeHandler
from services.processor.janitor import Janitor
from services.processor.settlement import S
from services.processor.settler import Asking, Settler
from services.processor.work import PAYMENT_WORK, REFUND_WORK, Work
from shared.broker import Consumer
from shared.dead_letters import DeadLetters
from shared.foundation import Foundation, lay_foundation
from shared.lifecycle import App, Lifecycle, Stoppable
from shared.probe import serve_probe
from shared.repeat import Repeating
from shared.topology import PROCESSOR_DEAD

FOLD_INTERVAL: Final = 5.0
"""Seconds between two times that all arrivals are looked at."""


@dataclass(frozen=True, slots=True)
class Line:
    """All that runs for one kind of work."""

    name: str
    consumer: Consumer
    clean: Callable[[], Awaitable[None]]


def make_app(settings: ProcessorSettings) -> App:
    """The service as its lifecycle runs it."""

    @contextlib.asynccontextmanager
    async def app(lifecycle: Lifecycle) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            base = await stack.enter_async_context(lay_foundation("processor", settings, lifecycle))
            asking = Asking(
                SandboxGateway(
                    latency_min=settings.sandbox_latency_min,
                    latency_max=settings.sandbox_latency_max,
                    failure_rate=settings.sandbox_failure_rate,
                ),
                settings.gateway_timeout,
                asyncio.Semaphore(settings.gateway_concurrency),
            )
            lines = [
                _line(PAYMENT_WORK, settings.consumers, settings, base, asking),
                _line(REFUND_WORK, settings.refund_consumers, settings, base, asking),
            ]
            await stack.enter_async_context(
                serve_probe(
                    settings.probe_host,
                    settings.probe_port,
                    lifecycle,
                    lambda: {"consuming": all(line.consumer.connected for line in lines)},
                )
            )
            folder = Folder(base.database)
            works: dict[str, Stoppable] = {
                "counts": Repeating("counts", folder.fold_once, FOLD_INTERVAL)
            }
            for line in lines:
                works[f"{line.name}_consumer"] = line.consumer
                works[f"{line.name}_janitor"] = Repeating(
                    f"{line.name} janitor", line.clean, settings.janitor_interval
                )
            await stack.enter_async_context(lifecycle.running(settings.drain_timeout, **works))
            for line in lines:
                await line.consumer.wait_connected(settings.start_timeout)
            yield

    return app


def _line(
    work: Work[S], consumers: int, settings: ProcessorSettings, base: Foundation, asking: Asking
) -> Line:
    """The line for one kind of work; its consumer and its janitor share a settler."""
    amqp_url = settings.amqp_url.get_secret_value()
    settler = Settler(work, base.database, base.relay, asking, settings.batch)
    handler = EnvelopeHandler(settler, DeadLetters(base.publisher, PROCESSOR_DEAD))
    consumer = Consumer(
        amqp_url,
        work.queue,
        handler.handle,
        name="processor",
        channels=consumers,
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
    return Line(work.table, consumer, janitor.clean)
