"""Requests that change something and are not payments or refunds: done once for each key.

The key, the change and the answer are one commit. Whoever repeats the request gets the same answer,
whether the first is done, is under way in another process, or lost its answer in a crash.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from services.api.context import CONTEXT, answer, answer_text, idempotency_key
from services.api.errors import key_reused
from services.api.gate import CALLER
from services.api.models import Request
from services.api.store.requests import claim_request, forget_answers, save_answer
from shared.db import Connection, Database
from shared.json_text import to_json

REPLAYED: Final = {"Idempotent-Replayed": "true"}
AT_ONCE: Final = 1000


async def once(
    request: web.Request,
    route: str,
    body: Request,
    change: Callable[[Connection], Awaitable[Mapping[str, Any]]],
) -> web.Response:
    """Answer with what `change` returns, in one transaction; or as the request's key was answered.

    `route` is the path without its mount: keys of two routes do not meet. A Problem that `change`
    raises saves nothing. Raises a Problem for a key that was used with another body.
    """
    key, seal = idempotency_key(request), request.app[CONTEXT].seal
    async with request.app[CONTEXT].database.transaction() as transaction:
        if key is None:
            return answer(await change(transaction))
        account_id = request[CALLER].account_id
        meaning = json.dumps(body.model_dump(mode="json"), sort_keys=True)
        fingerprint = hashlib.sha256(meaning.encode()).digest()
        earlier = await claim_request(
            transaction, account_id=account_id, route=route, key=key, fingerprint=fingerprint
        )
        if earlier is not None:
            if earlier.fingerprint != fingerprint:
                raise key_reused()
            return answer_text(seal.open(earlier.body), headers=REPLAYED)
        text = to_json(await change(transaction))
        await save_answer(
            transaction, account_id=account_id, route=route, key=key, body=seal.close(text)
        )
    return answer_text(text)


async def forget_old_answers(database: Database, retention: float) -> None:
    """Forget every answer that is older than `retention` seconds."""
    while await forget_answers(database, older_than=retention, limit=AT_ONCE) == AT_ONCE:
        pass
