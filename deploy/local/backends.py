"""Private Postgres and RabbitMQ, started together."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from deploy.local.binaries import Binaries, Say
from deploy.local.instance import Instance
from deploy.local.postgres import PrivatePostgres
from deploy.local.processes import Record
from deploy.local.rabbitmq import PrivateRabbitMQ
from deploy.local.supervisor import Supervised
from deploy.local.writeback import Writeback
from shared.repeat import Repeating

START_TIMEOUT = 90.0


class Backends:
    """What Florin stands on, under one data directory."""

    def __init__(
        self, data: Path, binaries: Binaries, instance: Instance, record: Record, say: Say
    ) -> None:
        logs = data / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._postgres = PrivatePostgres(binaries.postgres, data / "postgres", instance)
        self._rabbitmq = PrivateRabbitMQ(binaries, data / "rabbitmq", instance)
        self._writeback = Repeating("writeback", Writeback(data / "postgres").write, 0.0)
        self._tasks: list[asyncio.Task[None]] = []
        name_server, broker = self._rabbitmq.commands()

        async def always() -> bool:
            return True

        self.postgres = Supervised(
            self._postgres.command(), self._postgres.is_ready, record=record, logs=logs, say=say
        )
        self.epmd = Supervised(name_server, always, record=record, logs=logs, say=say)
        self.rabbitmq = Supervised(
            broker, self._rabbitmq.is_ready, record=record, logs=logs, say=say
        )

    @property
    def processes(self) -> Sequence[Supervised]:
        """All of them, in the order in which they start."""
        return (self.postgres, self.epmd, self.rabbitmq)

    async def start(self) -> None:
        """Make what is missing and start both. Raises Misconfigured."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_postgres())
            group.create_task(self._start_rabbitmq())

    async def stop(self) -> None:
        """Stop both, in order."""
        self._writeback.stop()
        try:
            await asyncio.gather(self.rabbitmq.stop(), self.postgres.stop())
        finally:
            await self.epmd.stop()
            await asyncio.gather(*self._tasks)

    async def _start_postgres(self) -> None:
        self.postgres.state = "preparing"
        await asyncio.to_thread(self._postgres.prepare)
        await self.postgres.start(START_TIMEOUT)
        await self._postgres.make_database()
        self._tasks.append(asyncio.create_task(self._writeback.run()))

    async def _start_rabbitmq(self) -> None:
        self._rabbitmq.prepare()
        await self.epmd.start(START_TIMEOUT)
        await self.rabbitmq.start(START_TIMEOUT)
