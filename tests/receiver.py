"""A merchant's HTTP server: keeps what it hears, answers as it is told, and can be waited on."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

import stripe
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

Answer = Callable[["Heard"], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Heard:
    """One request that arrived."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The body, parsed."""
        event: dict[str, Any] = json.loads(self.body)
        return event


def verify(heard: Heard, secret: str) -> None:
    """Have both official libraries verify what was heard. Raises their errors."""
    Webhook(secret).verify(heard.body, heard.headers)
    stripe.Webhook.construct_event(heard.body, heard.headers["Stripe-Signature"], secret)


async def _ok(_: Heard) -> web.Response:
    return web.Response(text="thanks")


class Receiver:
    """What was heard, and how to answer."""

    def __init__(self) -> None:
        self.url = ""
        self.secret = ""
        self.heard: list[Heard] = []
        self.verifies = False
        """Whether every request must be signed with `secret`, as two official libraries see it."""
        self.disbelieved: list[Exception] = []
        self.answer: Answer = _ok
        self._times: dict[str, Counter[str]] = {}
        self._news = asyncio.Condition()

    def times(self, type_: str) -> Counter[str]:
        """How often each object's event of a type was heard, by the object's id."""
        return self._times.setdefault(type_, Counter())

    def has_heard_the_outcome_of(self, ids: Collection[str]) -> bool:
        """Whether every one of these payments was told to be completed or failed."""
        completed, failed = self.times("payment.completed"), self.times("payment.failed")
        return all(id_ in completed or id_ in failed for id_ in ids)

    async def wait_until(self, condition: Callable[[], bool], timeout: float = 30) -> None:
        """Wait until what was heard makes `condition` true."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(condition)

    async def handle(self, request: web.Request) -> web.Response:
        """Hear one request."""
        heard = Heard(dict(request.headers), await request.read())
        self.heard.append(heard)
        if self.verifies:
            try:
                verify(heard, self.secret)
            except (WebhookVerificationError, stripe.SignatureVerificationError) as error:
                self.disbelieved.append(error)
        event = heard.event
        self.times(event["type"])[event["data"]["object"]["id"]] += 1
        async with self._news:
            self._news.notify_all()
        return await self.answer(heard)


@contextlib.asynccontextmanager
async def open_receiver(port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on a loopback port, free unless given."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()
