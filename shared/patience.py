"""Patience with what will come back: repeat a call until Postgres or RabbitMQ answers."""

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import structlog
import tenacity
from tenacity.stop import StopBaseT

from shared.errors import Transient

log = structlog.get_logger()
P = ParamSpec("P")
R = TypeVar("R")


async def persist(call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of `call`, however long Transient errors keep it waiting.

    For work that holds an unacked message: whoever stops waiting gives the message back.
    """
    return await _repeated(call, tenacity.stop_never, args, kwargs)


async def try_for(
    seconds: float, call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
) -> R:
    """The result of `call`, repeated for at most `seconds`; then its Transient error."""
    return await _repeated(call, tenacity.stop_after_delay(seconds), args, kwargs)


async def _repeated(
    call: Callable[..., Awaitable[R]], stop: StopBaseT, args: Any, kwargs: Any
) -> R:
    # Nearly every call succeeds, and what it would take to repeat it costs 50 microseconds: it is
    # made for those that failed, whose second try follows at once.
    name = getattr(call, "__name__", repr(call))
    try:
        return await call(*args, **kwargs)
    except Transient as error:
        log.warning("will_try_again", step=name, attempt=1, reason=str(error))

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        attempt = state.attempt_number + 1
        log.warning("will_try_again", step=name, attempt=attempt, reason=str(error))

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Transient),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=3),
        stop=stop,
        before_sleep=say,
        reraise=True,
    )
    return await retrying(call, *args, **kwargs)
