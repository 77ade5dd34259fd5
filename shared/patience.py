"""Patience with what will come back: repeat a call until Postgres or RabbitMQ answers."""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

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
    return await _retrying(call, tenacity.stop_never)(call, *args, **kwargs)


async def try_for(
    seconds: float, call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
) -> R:
    """The result of `call`, repeated for at most `seconds`; then its Transient error."""
    stop = tenacity.stop_after_delay(seconds)
    return await _retrying(call, stop)(call, *args, **kwargs)


def _retrying(call: Callable[..., object], stop: StopBaseT) -> tenacity.AsyncRetrying:
    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        name = getattr(call, "__name__", repr(call))
        log.warning("will_try_again", step=name, attempt=state.attempt_number, reason=str(error))

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Transient),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=3),
        stop=stop,
        before_sleep=say,
        reraise=True,
    )
