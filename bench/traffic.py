"""What a measurement asks for: payments of some accounts, refunds among them, keys used twice."""

import itertools
import json
from bisect import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from bench.load import Answer

REMEMBERED: Final = 1_000
"""Requests of which one may be sent again, and payments of which one may be refunded."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An account, by its key. `weight` is its share of the traffic, in any unit."""

    key: str
    weight: float = 1.0


def zipf(keys: Sequence[str]) -> list[Tenant]:
    """Tenants of which the nth has 1/n of the traffic of the first."""
    return [Tenant(key, 1 / rank) for rank, key in enumerate(keys, 1)]


class Payments:
    """Requests for payments. `refunds` and `repeats` are the shares, from 0 to 1, that are refunds
    of what was completed and earlier requests sent again."""

    def __init__(
        self,
        host: str,
        tenants: Sequence[Tenant],
        *,
        refunds: float = 0.0,
        repeats: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._host = host
        self._tenants = tenants
        self._weights = list(itertools.accumulate(tenant.weight for tenant in tenants))
        self._refunds = refunds
        self._repeats = repeats
        self._random = Random(seed)  # noqa: S311 - a choice of traffic, not a secret
        self._numbers = itertools.count(1)
        self._run = f"{self._random.getrandbits(48):012x}"
        self._recent: deque[bytes] = deque(maxlen=REMEMBERED)
        self._completed: deque[str] = deque()
        self._heads = {tenant.key: self._head(tenant.key) for tenant in tenants}

    def next(self) -> bytes:
        """The next request, whole."""
        draw = self._random.random()
        if draw < self._repeats and self._recent:
            return self._recent[self._random.randrange(len(self._recent))]
        if draw < self._repeats + self._refunds and self._completed:
            return self._refund()
        return self._payment()

    def id_of(self, answer: Answer) -> str | None:
        """The id of what was newly accepted; None for a repeat."""
        if b"idempotent-replayed: true" in answer.head.lower():
            return None
        at = answer.body.find(b'"payment_id":"')
        at = at + 14 if at >= 0 else answer.body.index(b'"id":"') + 6
        return answer.body[at : answer.body.index(b'"', at)].decode()

    def completed(self, id_: str) -> None:
        """The merchant heard that this payment was completed: it may be refunded."""
        if self._refunds and id_.startswith("pay_") and len(self._completed) < REMEMBERED:
            self._completed.append(id_)

    def _payment(self) -> bytes:
        number = next(self._numbers)
        at = self._random.random() * self._weights[-1]
        tenant = self._tenants[min(bisect(self._weights, at), len(self._tenants) - 1)]
        user = f"user_{number % 5000}"
        body = (
            f'{{"user_id":"{user}","amount":"{10 + number % 90}.{number % 100:02}",'
            f'"currency":"THB","description":"Order {number}"}}'
        ).encode()
        request = self._request("/api/v1/payments", tenant.key, user, number, body)
        if self._repeats:
            self._recent.append(request)
        return request

    def _refund(self) -> bytes:
        number = next(self._numbers)
        id_ = self._completed.popleft()
        body = json.dumps({"payment_id": id_, "reason": "requested_by_customer"}).encode()
        key = self._tenants[0].key
        return self._request("/api/v1/refunds", key, f"user_{number % 5000}", number, body)

    def _request(self, path: str, key: str, user: str, number: int, body: bytes) -> bytes:
        line = f"POST {path} HTTP/1.1\r\n"
        rest = (
            f"X-User-ID: {user}\r\nIdempotency-Key: {self._run}-{number}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return line.encode() + self._heads[key] + rest.encode() + body

    def _head(self, key: str) -> bytes:
        return (
            f"Host: {self._host}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\n"
        ).encode()
