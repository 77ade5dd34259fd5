"""What settling a payment and settling a refund have in common, statement by statement."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.processor.settlement import S, Settlement
from shared.messages import CLOSING, EVENTS, Item, encode_item, opening
from shared.store import NUMBERED_BODY, OutboxRow
from shared.topology import EVENTS as EVENTS_EXCHANGE

INPUT: Final = """
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                          $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
                          $13::timestamptz[], $14::text[])
                AS i (account_id, id, status, gateway, gateway_reference, failure_code,
                      failure_message, transfer_id, event_id, event_type, event_body, item, at,
                      call)
        ), """
"""The settlements, as a table."""

CHANGES: Final = """
                   status = input.status,
                   gateway = input.gateway,
                   gateway_reference = input.gateway_reference,
                   gateway_calls = gateway_calls || input.call::jsonb,
                   failure_code = input.failure_code,
                   failure_message = input.failure_message,
                   unknown_since = NULL,
                   updated_at = input.at,
                   processed_at = input.at"""
"""What a settlement changes of its row."""

CONSEQUENCES: Final = """
        ), posted AS (
            INSERT INTO ledger_accounts (account_id, currency, kind, debits_posted, credits_posted)
            SELECT account_id, currency, kind, sum(debited), sum(credited)
              FROM (SELECT account_id, currency, debit AS kind, amount AS debited, 0 AS credited
                      FROM moved
                     UNION ALL
                    SELECT account_id, currency, credit, 0, amount
                      FROM moved) AS entries
             GROUP BY account_id, currency, kind
             ORDER BY account_id, currency, kind  -- every settler locks balances in this order
                ON CONFLICT (account_id, currency, kind) DO UPDATE
               SET debits_posted = ledger_accounts.debits_posted + excluded.debits_posted,
                   credits_posted = ledger_accounts.credits_posted + excluded.credits_posted
        ), counted AS (
            INSERT INTO counts (account_id, object, currency, status, number, amount)
            SELECT account_id, '{object}', currency, change.status,
                   sign * count(*), sign * sum(amount)
              FROM settled,
                   LATERAL (VALUES ('processing', -1), (settled.status, 1)) AS change (status, sign)
             GROUP BY account_id, currency, change.status, sign
        {told}, queued AS (
            INSERT INTO outbox (exchange, routing_key, body)
            SELECT $15, event_type, $16 || string_agg(item, ',') || $17
              FROM settled
             GROUP BY event_type
            RETURNING id, exchange, routing_key, body
        )
        SELECT id AS moved_id, NULL::bigint AS outbox_id, NULL AS exchange, NULL AS routing_key,
               NULL AS body
          FROM settled
         UNION ALL
        SELECT NULL, id, exchange, routing_key, body FROM queued
"""
"""What follows for balances, counts, events and messages, from the rows `settled`, of which `moved`
are the transfers. `{object}` is what the counts are of, `{told}` is `tell("settled")`."""


def tell(rows: str) -> str:
    """The parts of a statement that number and insert the events of `rows`.

    An account's number is locked until the commit, so that numbers are in the order of commits.
    Every statement with both is made of these parts, and locks numbers and balances in one order.
    """
    return f"""), numbered AS (
            INSERT INTO event_sequences (account_id, last)
            SELECT account_id, count(*)
              FROM {rows}
             GROUP BY account_id
             ORDER BY account_id
                ON CONFLICT (account_id) DO UPDATE
               SET last = event_sequences.last + excluded.last
            RETURNING account_id, last
        ), told AS (
            INSERT INTO events (account_id, id, type, object_id, sequence, body)
            SELECT account_id, event_id, event_type, id, sequence, {NUMBERED_BODY}
              FROM (SELECT {rows}.*,
                           last + 1 - row_number() OVER (PARTITION BY account_id
                                                         ORDER BY event_id DESC) AS sequence
                      FROM {rows} JOIN numbered USING (account_id)) AS events_of
        )"""  # noqa: S608 - constants


def arguments(settlements: Sequence[Settlement[S]]) -> list[Any]:
    """The arguments of a statement that is made of the parts above."""
    return [
        [s.subject.account_id for s in settlements],
        [s.subject.id for s in settlements],
        [s.subject.status for s in settlements],
        [s.subject.gateway for s in settlements],
        [s.subject.gateway_reference for s in settlements],
        [s.subject.failure_code for s in settlements],
        [s.subject.failure_message for s in settlements],
        [s.transfer_id for s in settlements],
        [s.event.id for s in settlements],
        [s.event.type for s in settlements],
        [s.event.body for s in settlements],
        [encode_item(Item(s.subject.account_id, s.event.id)) for s in settlements],
        [s.at for s in settlements],
        [s.call for s in settlements],
        EVENTS_EXCHANGE,
        opening(EVENTS),
        CLOSING,
    ]


def moved_and_messages(rows: Sequence[Mapping[str, Any]]) -> tuple[set[str], list[OutboxRow]]:
    """The ids of the rows that a statement moved, and the messages that it wrote."""
    moved = {row["moved_id"] for row in rows if row["outbox_id"] is None}
    messages = [
        OutboxRow(row["outbox_id"], row["exchange"], row["routing_key"], row["body"])
        for row in rows
        if row["outbox_id"] is not None
    ]
    return moved, messages
