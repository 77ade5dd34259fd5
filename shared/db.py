"""Postgres at the edge: one pool, sane session settings, and errors that say what to do next.

Nothing outside this module sees asyncpg: statements live in store.py modules and call `Database`.
"""

from __future__ import annotations  # asyncpg's classes are generic in its stubs alone

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, cast

import asyncpg
import structlog
import tenacity

from shared.errors import Permanent, Transient
from shared.log import without_secrets

log = structlog.get_logger()

# Classes of SQLSTATE (Postgres, appendix A) that are the fault of the row and will be for ever:
# data exception, integrity violation, program limit exceeded, and what our own triggers raise.
# Everything else (no connection, deadlock, shutdown, full disk, missing grant) leaves the row
# innocent: the same statement may succeed later.
_THE_ROWS_FAULT: Final = ("22", "23", "54", "P0")

_SESSION: Final = {
    # Statements find rows by key, in sets; a plan made while a table was empty must not become a
    # sequential scan of a million rows. With scans priced out, JIT would see "huge" costs: off.
    "enable_seqscan": "off",
    "jit": "off",
    "timezone": "UTC",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
}
_PROMPT: Final = {
    # To start two helpers takes 20 ms, for a statement that takes one.
    "max_parallel_workers_per_gather": "0",
}


# A plan that is kept was made for the tables as they were, and of empty tables any index seems as
# good as the right one. Each connection forgets its plans after this many seconds, then after twice
# as many, and so on, up to the longest; to plan anew costs a few milliseconds.
_FIRST_PLANS_LAST: Final = 0.5
_PLANS_LAST: Final = 60.0


class DatabaseUnavailable(Transient):
    """Postgres is away, or refused for a reason that may pass."""


class _Confused(DatabaseUnavailable):
    """The connection cannot be used again; another may work."""


class RowRefused(Permanent):
    """Postgres refuses this row, whenever it comes. `constraint` names the rule where it has one.

    The message leaves out Postgres's own words, which quote the row.
    """

    def __init__(self, message: str, constraint: str | None) -> None:
        super().__init__(message)
        self.constraint = constraint


Row = Mapping[str, Any]
_Raw: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class Rows(Protocol):
    """What statements need: a connection inside a transaction, or the whole database."""

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]: ...
    async def fetchrow(self, sql: str, *args: Any) -> Row | None: ...
    async def fetchval(self, sql: str, *args: Any) -> Any: ...
    async def execute(self, sql: str, *args: Any) -> str: ...


@contextlib.contextmanager
def _translated() -> Any:
    try:
        yield
    except asyncpg.PostgresError as error:
        state, name = error.sqlstate or "", type(error).__name__
        if state.startswith(_THE_ROWS_FAULT):
            constraint = getattr(error, "constraint_name", None)
            rule = f", constraint {constraint}" if constraint else ""
            raise RowRefused(f"{name} (SQLSTATE {state}{rule})", constraint) from None
        raise DatabaseUnavailable(f"{name} (SQLSTATE {state}): {error.args[0]}") from None
    except asyncpg.InternalClientError as error:
        # As when Postgres says goodbye at the very moment at which a statement begins.
        raise _Confused(f"the connection is in no state to be used: {error}") from None
    except ValueError as error:  # an argument that the client itself cannot encode
        raise RowRefused(f"a value cannot be stored: {type(error).__name__}", None) from None
    except (TimeoutError, asyncpg.InterfaceError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise DatabaseUnavailable(f"no answer from Postgres: {reason}") from None


class Connection:
    """One connection, lent by `Database.connection` or inside `Database.transaction`."""

    def __init__(self, raw: _Raw) -> None:
        self.raw = raw

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """All rows of a statement."""
        with _translated():
            return cast(Sequence[Row], await self.raw.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        """The first row of a statement, if there is one."""
        with _translated():
            return cast(Row | None, await self.raw.fetchrow(sql, *args))

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """The first value of the first row."""
        with _translated():
            return await self.raw.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        """The command tag of a statement without rows: `UPDATE 1`."""
        with _translated():
            return await self.raw.execute(sql, *args)


class _Plans:
    """Lets each connection forget its plans in time, after a statement.

    In asyncpg's pool it stands where that would send a RESET, which doubles the cost of a small
    query: our sessions keep no other state.
    """

    def __init__(self) -> None:
        self._due: dict[int, tuple[float, float]] = {}
        """When the plans of a connection are next forgotten, and how long they then have lasted;
        by the number of its backend."""

    async def begin(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """A connection was made."""
        number = connection.get_server_pid()
        self._due[number] = time.monotonic() + _FIRST_PLANS_LAST, _FIRST_PLANS_LAST

        def ended(_: object) -> None:
            self._due.pop(number, None)

        connection.add_termination_listener(ended)

    async def forget_old(self, connection: asyncpg.Connection[asyncpg.Record] | _Raw) -> None:
        """Forget the plans of a connection, if it is time."""
        now, number = time.monotonic(), connection.get_server_pid()
        due, lasted = self._due.get(number, (now, _FIRST_PLANS_LAST))
        if now < due:
            return
        last = min(2 * lasted, _PLANS_LAST)
        self._due[number] = now + last, last
        try:
            async with asyncio.timeout(1):
                await connection.execute("DISCARD PLANS")
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
        ):
            # What it was used for is done; the next gets another.
            with contextlib.suppress(asyncpg.InterfaceError):  # it is gone already
                connection.terminate()


class Database:
    """A pool of connections. Every method raises Transient or RowRefused, never asyncpg's own.

    A connection is kept for the next statement, for to give it back to asyncpg's pool and to ask
    for one again costs two tasks and a timer, several times what a small statement does. It goes
    back when a statement failed, or when somebody waits for one. Of those that are kept the oldest
    is taken: so nearly all is done by a few of Postgres' backends, which find what they need in
    their caches.
    """

    def __init__(
        self, pool: asyncpg.Pool[asyncpg.Record], acquire_timeout: float, plans: _Plans
    ) -> None:
        self._pool = pool
        self._acquire_timeout = acquire_timeout
        self._plans = plans
        self._kept: list[tuple[int, _Raw]] = []
        """A heap, by the numbers of their backends."""
        self._asking = 0
        """Who waits for the pool."""
        self._closing = False

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """All rows of a statement."""
        async with self.connection() as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        """The first row of a statement, if there is one."""
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """The first value of the first row."""
        async with self.connection() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        """The command tag of a statement without rows: `UPDATE 1`."""
        async with self.connection() as connection:
            return await connection.execute(sql, *args)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for the length of the block; each statement commits by itself."""
        raw = await self._take()
        try:
            yield Connection(raw)
            if _is_open(raw):
                await self._plans.forget_old(raw)
        except BaseException as fault:
            if isinstance(fault, _Confused):
                raw.terminate()
            await self._release(raw)  # which waits for a statement that was given up to end
            raise
        if self._asking or self._closing or not _is_open(raw):
            await self._release(raw)
        else:
            heapq.heappush(self._kept, (raw.get_server_pid(), raw))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises."""
        async with self.connection() as connection:
            with _translated():
                async with connection.raw.transaction():
                    yield connection

    async def _take(self) -> _Raw:
        while self._kept:
            _, kept = heapq.heappop(self._kept)
            if _is_open(kept):
                return kept
            await self._release(kept)
        self._asking += 1
        try:
            with _translated():
                return await self._pool.acquire(timeout=self._acquire_timeout)
        finally:
            self._asking -= 1

    async def _release(self, raw: _Raw) -> None:
        with _translated():
            await self._pool.release(raw)

    async def close(self) -> None:
        """Close every connection; those still busy after five seconds are cut."""
        self._closing = True
        try:
            async with asyncio.timeout(5):
                while self._kept:
                    await self._release(self._kept.pop()[1])
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


def _is_open(raw: _Raw) -> bool:
    try:
        return not raw.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken it back, for it was lost
        return False


async def open_database(
    url: str,
    *,
    service: str,
    size: int,
    wait: float,
    acquire_timeout: float = 5.0,
    patient: bool = False,
) -> Database:
    """Open a pool of at most `size` connections, waiting up to `wait` seconds for Postgres.

    A statement may take half a minute; as long as it likes when `patient`, for operators' commands.
    Raises DatabaseUnavailable when the time is up, saying where it looked.
    """
    where = without_secrets(url)

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("waiting_for_postgres", where=where, reason=str(error))

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=3),
        stop=tenacity.stop_after_delay(wait),
        before_sleep=say,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt, _translated():
            plans = _Plans()
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=size,
                timeout=5,
                command_timeout=None if patient else 35,
                max_inactive_connection_lifetime=0,
                init=plans.begin,
                reset=plans.forget_old,
                server_settings=_SESSION
                | ({} if patient else _PROMPT)
                | {"application_name": f"florin {service}"},
            )
            return Database(pool, acquire_timeout, plans)
    raise AssertionError("tenacity reraises")  # pragma: no cover
