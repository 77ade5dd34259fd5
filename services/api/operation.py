"""What one route is: the line that mounts it and the page that documents it are made from this."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from services.api.models import Request


@dataclass(frozen=True, slots=True)
class Operation:
    """A method and a path below every mount, and what goes in and comes out.

    `answer` is the type of the body that comes with `status`; None where it is not JSON. The
    handler's docstring is the documentation.
    """

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    answer: Any
    status: int = 200
    body: type[Request] | None = None
    query: type[Request] | None = None
    stream: bool = False
    """Server-sent events, until the client has enough."""
    open: bool = False
    """Without a key and without a limit."""
    plain: bool = False
    """Its handler looks at headers and body alone: most need not go through aiohttp."""

    @property
    def name(self) -> str:
        """Its unique name: `create_charge`, from the handler and the resource."""
        resource = self.handler.__module__.rpartition(".")[2]
        return f"{resource}.{self.handler.__name__.strip('_')}"
