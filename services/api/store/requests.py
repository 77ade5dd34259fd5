"""Answers that an Idempotency-Key brings back, where no payment or refund row keeps the key."""

from dataclasses import dataclass

from shared.db import Connection, Database


@dataclass(frozen=True, slots=True)
class Answered:
    """What an earlier request with the same key sent, by its fingerprint, and was answered.

    The body is sealed: it may show a secret."""

    fingerprint: bytes
    body: str


async def claim_request(
    transaction: Connection, *, account_id: str, route: str, key: str, fingerprint: bytes
) -> Answered | None:
    """Take a key for this transaction; or what the request that had it before was answered.

    The unique key decides: of two requests at once, in whatever process, the second waits here for
    the first to commit.
    """
    claimed = await transaction.fetchval(
        """
        INSERT INTO request_answers (account_id, route, key, fingerprint)
        VALUES ($1, $2, $3, $4)
            ON CONFLICT DO NOTHING
        RETURNING true
        """,
        account_id,
        route,
        key,
        fingerprint,
    )
    if claimed:
        return None
    row = await transaction.fetchrow(
        """
        SELECT fingerprint, body FROM request_answers
         WHERE account_id = $1 AND route = $2 AND key = $3
           FOR SHARE
        """,
        account_id,
        route,
        key,
    )
    if row is None:  # reaped between the two statements: it is free again
        return await claim_request(
            transaction, account_id=account_id, route=route, key=key, fingerprint=fingerprint
        )
    return Answered(**row)


async def save_answer(
    transaction: Connection, *, account_id: str, route: str, key: str, body: str
) -> None:
    """Keep the answer with the key that this transaction has taken."""
    await transaction.execute(
        """
        UPDATE request_answers SET body = $4
         WHERE account_id = $1 AND route = $2 AND key = $3
        """,
        account_id,
        route,
        key,
        body,
    )


async def forget_answers(database: Database, *, older_than: float, limit: int) -> int:
    """Forget up to `limit` answers that are older than `older_than` seconds; returns how many."""
    result = await database.execute(
        """
        DELETE FROM request_answers
         WHERE (account_id, route, key) IN (
               SELECT account_id, route, key FROM request_answers
                WHERE created_at < now() - make_interval(secs => $1)
                ORDER BY created_at
                LIMIT $2
                  FOR UPDATE SKIP LOCKED)
        """,
        older_than,
        limit,
    )
    return int(result.removeprefix("DELETE "))
