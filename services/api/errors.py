"""The one error envelope. Every refusal names the parameter and the remedy.

`{"error": {"type", "code", "message", "param"?, "request_id"}}`, with the types of Stripe's API so
that its SDKs raise the exceptions they should.
"""

from collections.abc import Mapping

from aiohttp import web
from pydantic import ValidationError

from services.api.codes import Code
from shared.json_text import to_json


class Problem(Exception):  # noqa: N818 - it is an answer
    """An answer that is an error. `code` is stable and documented; `message` is for people."""

    def __init__(
        self,
        status: int,
        type_: str,
        code: Code,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type_
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})


def invalid(code: Code, message: str, param: str | None = None, status: int = 400) -> Problem:
    """A request that can be mended by who sent it."""
    return Problem(status, "invalid_request_error", code, message, param=param)


def not_found(kind: str, id_: str) -> Problem:
    """There is no such object in this account."""
    return invalid(Code.RESOURCE_MISSING, f"No such {kind}: {id_[:80]!r}.", "id", 404)


def key_reused() -> Problem:
    """The Idempotency-Key stands for another request."""
    return Problem(
        400,
        "idempotency_error",
        Code.IDEMPOTENCY_KEY_REUSED,
        "This Idempotency-Key was used before with other parameters. Send a new key for a new"
        " request, or the first request unchanged.",
        param="Idempotency-Key",
    )


def unavailable(message: str, retry_after: int, *, again: bool = True) -> Problem:
    """Not now: the request may be repeated, unchanged, after `retry_after` seconds; by an SDK of
    its own accord only when `again`, which is when that cannot do it twice."""
    return Problem(
        503,
        "api_error",
        Code.UNAVAILABLE,
        message,
        headers={"Retry-After": str(retry_after), "Stripe-Should-Retry": str(again).lower()},
    )


def saturated() -> Problem:
    """More comes in than can be answered in time."""
    return unavailable("The server is saturated; try again in a second.", 1)


def from_validation(error: ValidationError, known: list[str]) -> Problem:
    """The first problem that pydantic found, in our words."""
    first = error.errors(include_url=False, include_input=False)[0]
    # What is wrong with a name is said of what it names.
    location = [str(part) for part in first["loc"] if part != "[key]"]
    param = location[0] + "".join(f"[{part}]" for part in location[1:]) if location else None
    match first["type"]:
        case "missing":
            return invalid(Code.PARAMETER_MISSING, f"Missing required parameter: {param}.", param)
        case "extra_forbidden":
            return invalid(
                Code.PARAMETER_UNKNOWN,
                f"Unknown parameter: {param}. Known here: {', '.join(known)}.",
                param,
            )
        case _:
            reason = first["msg"].removeprefix("Value error, ")
            reason = reason[:1].lower() + reason[1:]
            return invalid(Code.PARAMETER_INVALID, f"Invalid {param}: {reason}.", param)


def respond(problem: Problem, request_id: str) -> web.Response:
    """The problem as a response."""
    body = {
        "type": problem.type,
        "code": problem.code,
        "message": problem.message,
        **({"param": problem.param} if problem.param else {}),
        "request_id": request_id,
    }
    return web.Response(
        status=problem.status,
        text=to_json({"error": body}) + "\n",
        content_type="application/json",
        headers=problem.headers,
    )
