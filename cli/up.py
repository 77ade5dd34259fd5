"""`./florin up`: the whole system on this machine, by one command."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.target import given_urls
from cli.welcome import Management, greet
from deploy.local.backends import Backends
from deploy.local.binaries import find_or_install
from deploy.local.data_directory import Lock, hold
from deploy.local.instance import Instance, load_or_make
from deploy.local.ports import free_port, is_free
from deploy.local.processes import Command, Record
from deploy.local.supervisor import Supervised
from deploy.migrate import BootstrapSettings, migrate
from services.api.config import is_loopback
from shared import topology
from shared.config import Settings, is_in_a_file, load
from shared.errors import FlorinError, Misconfigured

ROOT = Path(__file__).parent.parent
SERVICE_TIMEOUT = 60.0
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what a host may be, not what it is
_COLOURS = {"ready": "green", "stopped": "dim", "restarting": "red", "not ready": "yellow"}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    host: str
    port: int
    data: Path
    quiet: bool


def up(options: Options) -> int:
    """Run until Ctrl-C or SIGTERM; returns the exit status."""
    console = Console(highlight=False)
    try:
        with hold(options.data) as lock:
            return asyncio.run(_Up(options, console, lock).run())
    except (FlorinError, BaseExceptionGroup) as error:
        reason = _first(error)
        if not isinstance(reason, FlorinError):
            raise
        console.print(Text(f"florin: {reason}", style="red"), soft_wrap=True)
        return 1


class _Up:
    def __init__(self, options: Options, console: Console, lock: Lock) -> None:
        self._options = options
        self._console = console
        self._lock = lock
        self._record = Record(options.data / "processes.json")
        self._processes: list[Supervised] = []
        self._backends: Backends | None = None
        self._services: list[Supervised] = []
        self._ending = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        starting = asyncio.create_task(self._start())

        def on_signal() -> None:
            self._ending.set()
            starting.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, on_signal)
        try:
            with self._shown():
                await starting
            await self._ending.wait()
        except asyncio.CancelledError:
            pass
        finally:
            await self._stop()
        return 0

    async def _start(self) -> None:
        data = self._options.data
        self._record.stop_orphans(self._say)
        port = self._options.port or free_port()
        if not is_free(port):
            raise Misconfigured(
                f"port {port} is taken by another program: stop it, or choose another with --port"
            )
        instance = load_or_make(data)
        urls = self._external_urls()
        if urls is None:
            binaries = await asyncio.to_thread(find_or_install, self._say)
            self._backends = Backends(data, binaries, instance, self._record, self._say)
            self._processes += self._backends.processes
            urls = (instance.database_url, instance.amqp_url)
        services = [
            self._service(name, urls, at, sealing_key=instance.sealing_key)
            for name, at in (("api", port), ("processor", None), ("notifier", None))
        ]
        self._processes += services
        if self._backends is not None:
            await self._backends.start()
        given = load(BootstrapSettings).bootstrap_key
        first_key = given.get_secret_value() if given else instance.api_key
        applied, _ = await migrate(urls[0], first_key=first_key)
        if applied:
            self._say(f"schema migrated to version {applied[-1].version}")
        settings = load(Settings)
        await topology.apply(urls[1], topology.describe(settings.webhook_retry_delays))
        self._services = services
        async with asyncio.TaskGroup() as group:
            for service in services:
                group.create_task(service.start(SERVICE_TIMEOUT))
        url = self._url(port)
        self._lock.note(url)
        self._welcome(url, first_key, instance)

    async def _stop(self) -> None:
        if self._services:
            self._say("draining: finishing what was accepted, then stopping")
        # Against the stream, so that each finds what it needs to finish.
        try:
            for service in self._services:
                await service.stop()
        finally:
            if self._backends is not None:
                await self._backends.stop()
        self._say("stopped")

    def _url(self, port: int) -> str:
        """Where this machine finds the API."""
        host = self._options.host
        host = "127.0.0.1" if host in EVERYWHERE else host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _external_urls(self) -> tuple[str, str] | None:
        database, amqp = given_urls()
        if database and amqp:
            return database, amqp
        if database or amqp:
            raise Misconfigured(
                "set both FLORIN_DATABASE_URL and FLORIN_AMQP_URL to use servers that run already,"
                " or neither to have private ones"
            )
        return None

    def _service(
        self,
        name: str,
        urls: tuple[str, str],
        port: int | None,
        *,
        sealing_key: str,
    ) -> Supervised:
        probe_port = port or free_port()
        defaults = {
            "FLORIN_AUTH": "local" if is_loopback(self._options.host) else "required",
            "FLORIN_SEALING_KEYS": sealing_key,
        }
        if is_loopback(self._options.host):
            defaults["FLORIN_WEBHOOK_ALLOWED_NETWORKS"] = "127.0.0.0/8,::1/128"
        environment = {
            # What the embedded system is unless the caller says otherwise …
            **{name: value for name, value in defaults.items() if not is_in_a_file(name)},
            **os.environ,
            # … and what this instance is.
            "FLORIN_DATABASE_URL": urls[0],
            "FLORIN_AMQP_URL": urls[1],
            "FLORIN_API_HOST": self._options.host,
            "FLORIN_API_PORT": str(port or 0),
            "FLORIN_PROBE_HOST": "127.0.0.1",
            "FLORIN_PROBE_PORT": str(probe_port),
            "PYTHONUNBUFFERED": "1",
        }
        command = Command(
            name=name,
            arguments=[sys.executable, "-m", f"services.{name}"],
            environment=environment,
            directory=ROOT,
            stop_timeout=60,
        )
        logs = self._options.data / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        return Supervised(
            command,
            _answers(
                f"{self._url(port)}/ready" if port else f"http://127.0.0.1:{probe_port}/ready"
            ),
            record=self._record,
            logs=logs,
            say=self._say,
        )

    def _say(self, line: str) -> None:
        if self._options.quiet or self._console.quiet:
            return
        try:
            self._console.print(Text(f"  {line}"), soft_wrap=True)
        except (OSError, SystemExit):
            # The terminal, or who read our pipe, is gone. What runs must still be stopped.
            self._console.quiet = True

    def _shown(self) -> Live:
        """The states of all processes while they start: a live table, or lines where there is no
        terminal."""
        is_live = self._console.is_terminal and not self._options.quiet
        return Live(
            get_renderable=self._states if is_live else lambda: "",
            console=self._console,
            refresh_per_second=8,
            transient=True,
            auto_refresh=is_live,
        )

    def _states(self) -> Table:
        table = Table(box=None, padding=(0, 2), show_header=False)
        for process in self._processes:
            state = Text(process.state, style=_COLOURS.get(process.state, "cyan"))
            table.add_row(f"  {process.name}", state, str(process.pid or ""))
        return table

    def _welcome(self, url: str, key: str, instance: Instance) -> None:
        if self._options.quiet:
            self._console.print(url)
            return
        table = Table(box=None, padding=(0, 2), show_header=False)
        for process in self._processes:
            log = process.log_file
            shown = log.relative_to(Path.cwd()) if log.is_relative_to(Path.cwd()) else log
            table.add_row(f"  {process.name}", Text(process.state, style="green"), f"{shown}")
        self._console.print(table)
        management = None
        if self._backends is not None:
            management = Management(instance.management_url, "florin", instance.rabbitmq_password)
        greet(self._console, url, key, management)


def _answers(url: str) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=2)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as found:
                return found.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    return is_ready


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
