"""The life of a service, the same for all three.

starting → ready → draining → stopped. SIGTERM or SIGINT ends the intake; what is held is finished,
flushed and closed by the context managers that opened it, in reverse order. A second signal is
harmless. A background task that dies stops the service with an error, for a supervisor to see.
"""

import asyncio
import contextlib
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

import structlog
import uvloop

from shared.config import Settings, load
from shared.errors import FlorinError, Misconfigured
from shared.log import configure

log = structlog.get_logger()
S = TypeVar("S", bound=Settings)

COLLECT_AFTER: Final = (50_000, 20, 20)
"""Objects more than were freed, before the youngest are looked at; and how often that, before the
older ones are."""


class Phase(StrEnum):
    """Where in its life a service is, as /ready and `./florin up` show it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Stoppable(Protocol):
    """Background work that can be asked to finish."""

    async def run(self) -> None:
        """Work until stopped."""
        ...

    def stop(self) -> None:
        """Finish what is held, then return from `run`."""
        ...


class Lifecycle:
    """Owns a service's background tasks and knows its phase."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self._ending = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._drained_by: float | None = None

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in the background until the service ends; its death ends the service."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    @contextlib.asynccontextmanager
    async def running(self, timeout: float, **works: Stoppable) -> AsyncIterator[None]:
        """Run `works` in the background during the block; then all stop, and finish what they hold.

        Everything together has `timeout` seconds, counted from the first that is asked to stop.
        """
        tasks = [self.spawn(name.replace("_", " "), work.run()) for name, work in works.items()]
        yield
        now = time.monotonic()
        self._drained_by = self._drained_by or now + timeout
        for work in works.values():
            work.stop()
        _, late = await asyncio.wait(tasks, timeout=max(0.0, self._drained_by - now))
        for task in late:
            log.warning("not_finished_in_time", task=task.get_name())
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)

    def end(self) -> None:
        """Begin to stop. Harmless when already stopping."""
        self._ending.set()

    async def wait_for_end(self) -> None:
        """Return when a signal or a failure asks the service to stop."""
        await self._ending.wait()

    async def cancel_tasks(self) -> None:
        """Cancel what is still running in the background and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def failure(self) -> BaseException | None:
        """What killed a background task, if anything did."""
        return self._failure

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._failure = self._failure or error
            log.error("background_task_died", task=task.get_name(), exc_info=error)
            self.end()


App = Callable[[Lifecycle], AbstractAsyncContextManager[None]]


def main(service: str, kind: type[S], make_app: Callable[[S], App]) -> None:
    """Read the settings, run the service until it is told to stop, and exit.

    Status 0 when it drained, 1 when something failed, 2 when a setting or the schema is wrong.
    """
    try:
        settings = load(kind)
    except Misconfigured as error:
        print(f"florin {service}: {error}", file=sys.stderr)
        sys.exit(2)
    configure(service, settings.log_level)
    app = make_app(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_live(service, app)))


def _spare_the_collector() -> None:
    """Have the collector of cycles look at less, and more seldom: what was made to start lives as
    long as the process, and what a request makes is nearly all freed by its last reference."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def _live(service: str, app: App) -> int:
    lifecycle = Lifecycle()
    loop = asyncio.get_running_loop()
    life = asyncio.create_task(_phases(service, app, lifecycle))

    def on_signal() -> None:
        if lifecycle.phase is Phase.STARTING:
            life.cancel()
        lifecycle.end()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await life
    except asyncio.CancelledError:
        log.info("stopped_while_starting")
        return 0
    except Misconfigured as error:
        log.error("cannot_start", reason=str(error))  # noqa: TRY400 - the message is the remedy
        return 2
    except FlorinError as error:
        log.error("cannot_start", reason=str(error))  # noqa: TRY400
        return 1
    except Exception:
        log.exception("service_failed")
        return 1
    finally:
        await lifecycle.cancel_tasks()
    return 1 if lifecycle.failure else 0


async def _phases(service: str, app: App, lifecycle: Lifecycle) -> None:
    async with app(lifecycle):
        _spare_the_collector()
        lifecycle.phase = Phase.READY
        log.info("ready", service=service)
        await lifecycle.wait_for_end()
        lifecycle.phase = Phase.DRAINING
        log.info("draining")
    log.info("stopped")
