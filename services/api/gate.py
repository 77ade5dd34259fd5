"""What happens to every request before and after its handler: the one middleware.

Request id → origin → congestion → key → rate limit → handler → headers; and every error becomes the
envelope.
"""

import time
from collections.abc import Awaitable, Callable, Collection
from functools import lru_cache
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.api import errors
from services.api.auth import Authenticator, Caller
from services.api.codes import Code
from services.api.congestion import Congestion
from services.api.errors import Problem
from services.api.rate_limit import RateLimiter, Verdict, field
from shared import metrics
from shared.batcher import Saturated
from shared.errors import Permanent, Transient
from shared.ids import new_id

log = structlog.get_logger()

CALLER: Final = web.RequestKey("caller", Caller)
AUTHENTICATOR: Final = web.RequestKey("authenticator", Authenticator)
"""For answers that last: a key may be revoked meanwhile."""
_VERDICT: Final = web.RequestKey("verdict", Verdict)
REQUEST_ID: Final = web.RequestKey("request_id", str)
MOUNTS: Final = ("/api/v1", "/v1")
"""Where the same resources are found: at ours, and where Stripe's clients look."""


_requests = lru_cache(256)(metrics.REQUESTS.labels)
_request_seconds = lru_cache(16)(metrics.REQUEST_SECONDS.labels)


def make_gate(
    authenticator: Authenticator,
    limiter: RateLimiter,
    congestion: Congestion,
    *,
    probes: Collection[str],
    pages: Collection[str],
) -> Middleware:
    """The middleware, with what it needs; `probes` and `pages` need no key, have no limit, and are
    answered however late it is. `probes` are answered under any name of the server, as those ask
    who watch it."""
    open_paths = frozenset(probes) | frozenset(pages)

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        request_id = request[REQUEST_ID] = new_id("req")
        try:
            authenticator.check_origin(request.headers, any_name=request.path in probes)
            if request.path not in open_paths:
                if congestion.refuses(started):
                    raise Saturated("the process is late")  # noqa: TRY301
                caller = await authenticator.authenticate(request.headers, started)
                request[CALLER], request[AUTHENTICATOR] = caller, authenticator
                # Not `started`: the key may have been looked for since, and a bucket that others
                # have moved on would look overdrawn.
                now = time.monotonic()
                verdict = request[_VERDICT] = limiter.take(_user(request, caller), now)
                _require_token(verdict)
            response = await handler(request)
        except Exception as error:
            response = errors.respond(_as_problem(error, request), request_id)
        _requests(request.method, response.status).inc()
        _request_seconds(request.method).observe(time.monotonic() - started)
        return response

    return gate


def make_dresser(limiter: RateLimiter) -> Callable[..., Awaitable[None]]:
    """What gives every response its headers, before the first byte of it leaves."""

    async def dress(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers["Request-Id"] = request[REQUEST_ID]
        headers["Server"] = "florin"
        verdict = request.get(_VERDICT)
        if verdict is not None:
            headers["RateLimit"] = field(verdict)
            headers["RateLimit-Policy"] = limiter.policy

    return dress


def _user(request: web.Request, caller: Caller) -> str:
    """Whose bucket pays: the user named within the account, else the key, else the address."""
    user = request.headers.get("X-User-ID")
    if user:
        if len(user) > 255:
            raise errors.invalid(
                Code.PARAMETER_INVALID, "X-User-ID is longer than 255 characters.", "X-User-ID"
            )
        return f"u:{caller.account_id}:{user}"
    if caller.key_id:
        return f"k:{caller.key_id}"
    return f"a:{request.remote}"


def _require_token(verdict: Verdict) -> None:
    if verdict.allowed:
        return
    raise Problem(
        429,
        "rate_limit_error",
        Code.RATE_LIMIT_EXCEEDED,
        f"Too many requests for this user: the next is allowed in {verdict.retry_after} s.",
        headers={"Retry-After": str(verdict.retry_after)},
    )


def _as_problem(error: Exception, request: web.Request) -> Problem:
    match error:
        case Problem():
            return error
        case Saturated():
            return errors.saturated()
        case Transient():
            return _away(error, request)
        case Permanent():
            log.error("row_refused", path=request.path, reason=str(error))
            return errors.invalid(
                Code.PARAMETER_INVALID, "The database refuses a value of this request.", None
            )
        case web.HTTPException():
            return _http_problem(error, request)
        case _:
            log.error("request_failed", path=request.path, exc_info=error)
            return Problem(
                500, "api_error", Code.INTERNAL_ERROR, "Something went wrong here; it was logged."
            )


def _away(error: Transient, request: web.Request) -> Problem:
    """Postgres did not answer: it may have done what was asked, and only a key can tell."""
    log.warning("request_unavailable", path=request.path, reason=str(error))
    if request.method == "POST" and "Idempotency-Key" not in request.headers:
        return errors.unavailable(
            "The database is away, and this request may have been accepted. It had no"
            " Idempotency-Key: look at what there is before you send it again.",
            2,
            again=False,
        )
    return errors.unavailable(
        "The database is away. Try again with the same Idempotency-Key: if this request"
        " was accepted after all, that key finds it.",
        2,
    )


def _http_problem(error: web.HTTPException, request: web.Request) -> Problem:
    match error.status:
        case 404:
            return errors.invalid(
                Code.ROUTE_UNKNOWN, f"There is no {request.path[:200]} here.", None, 404
            )
        case 405:
            allow = error.headers.get("Allow", "")
            problem = errors.invalid(
                Code.METHOD_NOT_ALLOWED,
                f"{request.method} does not work here; {allow} does.",
                None,
                405,
            )
            problem.headers["Allow"] = allow
            return problem
        case 413:
            return errors.invalid(Code.BODY_TOO_LARGE, "The body is larger than 1 MiB.", None, 413)
        case _:
            return errors.invalid(Code.REQUEST_INVALID, error.reason, None, error.status)
