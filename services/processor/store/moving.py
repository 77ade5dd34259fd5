"""What moving payments and moving refunds to their next states have in common, part by part."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.processor.settlement import Move, S
from shared.messages import CLOSING, EVENTS, encode_event, opening
from shared.store import NUMBERED_BODY, OutboxRow
from shared.topology import EVENTS as EVENTS_EXCHANGE

INPUT: Final = """
        WITH input AS (
            SELECT *
              FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                          $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
                          $13::text[], $14::timestamptz[], $15::timestamptz[], $16::text[])
                AS i (account_id, id, expected, status, gateway, gateway_reference, failure_code,
                      failure_message, transfer_id, event_id, event_type, event_body, item,
                      updated_at, processed_at, calls)
        ), """
"""The moves, as a table."""

CHANGES: Final = """
                   status = input.status,
                   gateway = input.gateway,
                   gateway_reference = input.gateway_reference,
                   gateway_calls = gateway_calls || input.calls::jsonb,
                   failure_code = input.failure_code,
                   failure_message = input.failure_message,
                   unknown_since = NULL,
                   updated_at = input.updated_at,
                   processed_at = input.processed_at"""
"""What a move changes of its row."""

_CONSEQUENCES: Final = """
        ), posted AS (
            INSERT INTO ledger_accounts (account_id, currency, kind, debits_posted, credits_posted)
            SELECT account_id, currency, kind, sum(debited), sum(credited)
              FROM (SELECT account_id, currency, debit AS kind, amount AS debited, 0 AS credited
                      FROM transferred
                     UNION ALL
                    SELECT account_id, currency, credit, 0, amount
                      FROM transferred) AS entries
             GROUP BY account_id, currency, kind
             ORDER BY account_id, currency, kind  -- every settler locks balances in this order
                ON CONFLICT (account_id, currency, kind) DO UPDATE
               SET debits_posted = ledger_accounts.debits_posted + excluded.debits_posted,
                   credits_posted = ledger_accounts.credits_posted + excluded.credits_posted
        ), counted AS (
            INSERT INTO arrivals (account_id, object, currency, status, number, amount)
            SELECT account_id, '{object}', currency, status, count(*), sum(amount)
              FROM moved
             GROUP BY account_id, currency, status
        ), numbered AS (
            INSERT INTO event_sequences (account_id, last)
            SELECT account_id, count(*)
              FROM moved
             WHERE event_id IS NOT NULL
             GROUP BY account_id
             ORDER BY account_id
                ON CONFLICT (account_id) DO UPDATE
               SET last = event_sequences.last + excluded.last
            RETURNING account_id, last
        ), told AS (
            INSERT INTO events (account_id, id, type, object_id, sequence, body)
            SELECT account_id, event_id, event_type, id, sequence, {body}
              FROM (SELECT moved.*,
                           last + 1 - row_number() OVER (PARTITION BY account_id
                                                         ORDER BY event_id DESC) AS sequence
                      FROM moved JOIN numbered USING (account_id)
                     WHERE event_id IS NOT NULL) AS events_of
        ), queued AS (
            INSERT INTO outbox (exchange, routing_key, body, headers)
            SELECT $17, min(event_type), $18 || string_agg(item, ',') || $19,
                   json_build_object('CC', array_agg(DISTINCT event_type))
              FROM moved
             WHERE event_id IS NOT NULL
            HAVING count(*) > 0
            RETURNING id, exchange, routing_key, body, headers
        )
        SELECT id AS moved_id, NULL::bigint AS outbox_id, NULL AS exchange, NULL AS routing_key,
               NULL AS body, NULL AS headers
          FROM moved
         UNION ALL
        SELECT NULL, id, exchange, routing_key, body, headers FROM queued
"""
"""What follows for balances, counts, events and messages, from the rows `moved`, and `transferred`,
the transfers among them. `{object}` is what is counted, `{body}` is NUMBERED_BODY.

An account's number is locked until the commit, so that numbers are in the order of commits; every
such statement locks balances and numbers in one order. One message tells of all that is committed:
whoever has bound a queue to the type of any of its events gets it, once (the header CC, RabbitMQ's
sender-selected distribution).
"""


def consequences(object_: str) -> str:
    """What follows from moving payments or refunds."""
    return _CONSEQUENCES.format(object=object_, body=NUMBERED_BODY)


def arguments(moves: Sequence[Move[S]]) -> list[Any]:
    """The arguments of a statement that is made of the parts above."""
    subjects = [move.subject for move in moves]
    events = [move.event for move in moves]
    return [
        [s.account_id for s in subjects],
        [s.id for s in subjects],
        [move.expected for move in moves],
        [s.status for s in subjects],
        [s.gateway for s in subjects],
        [s.gateway_reference for s in subjects],
        [s.failure_code for s in subjects],
        [s.failure_message for s in subjects],
        [move.transfer_id for move in moves],
        [e and e.id for e in events],
        [e and e.type for e in events],
        [e and e.body for e in events],
        [e and encode_event(e.account_id, e.id, e.type) for e in events],
        [s.updated_at for s in subjects],
        [s.processed_at for s in subjects],
        [move.calls for move in moves],
        EVENTS_EXCHANGE,
        opening(EVENTS),
        CLOSING,
    ]


def moved_and_messages(rows: Sequence[Mapping[str, Any]]) -> tuple[set[str], list[OutboxRow]]:
    """The ids of the rows that a statement moved, and the messages that it wrote."""
    moved = {row["moved_id"] for row in rows if row["outbox_id"] is None}
    messages = [
        OutboxRow(
            row["outbox_id"], row["exchange"], row["routing_key"], row["body"], row["headers"]
        )
        for row in rows
        if row["outbox_id"] is not None
    ]
    return moved, messages
