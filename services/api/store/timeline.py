"""Every step of one payment, from wherever it was written down."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db import Database


@dataclass(frozen=True, slots=True)
class Recorded:
    """One step: when, what, and what there is to know about it."""

    at: datetime
    step: str
    detail: dict[str, Any]


async def find_steps(database: Database, account_id: str, payment_id: str) -> list[Recorded] | None:
    """The steps of a payment and its refunds, in no order; None when there is no such payment."""
    rows = await database.fetch(
        """
        WITH payment AS (
            SELECT * FROM payments WHERE account_id = $1 AND id = $2
        ), refund AS (
            SELECT * FROM refunds WHERE account_id = $1 AND payment_id = $2
        ), subject AS (
            SELECT id, NULL AS refund_id, 'payment' AS kind, created_at, request_id, amount,
                   currency, queued_again_at, gateway, gateway_calls
              FROM payment
             UNION ALL
            SELECT id, id, 'refund', created_at, request_id, amount,
                   currency, queued_again_at, gateway, gateway_calls
              FROM refund
        ), told AS (
            SELECT events.id, events.type, events.created_at, refund_id, kind,
                   subject.created_at AS accepted_at
              FROM subject
              JOIN events ON events.account_id = $1 AND events.object_id = subject.id
        ), step AS (
            SELECT created_at AS at, kind || '_accepted' AS step, refund_id,
                   jsonb_build_object('request_id', request_id, 'amount_minor', amount,
                                      'currency', currency) AS detail
              FROM subject
             UNION ALL
            SELECT queued_again_at, 'queued_again', refund_id, '{}'
              FROM subject
             WHERE queued_again_at IS NOT NULL
             UNION ALL
            SELECT created_at, 'taken_from_queue', refund_id,
                   jsonb_build_object('waited_ms',
                       round(extract(epoch FROM created_at - accepted_at) * 1000))
              FROM told
             WHERE type = 'payment.processing'
             UNION ALL
            SELECT (call ->> 'asked_at')::timestamptz, 'gateway_called', refund_id,
                   jsonb_build_object('gateway', gateway) || call
              FROM subject, jsonb_array_elements(gateway_calls) AS call
             UNION ALL
            SELECT transfers.created_at, 'transferred', refund_id,
                   jsonb_build_object('transfer_id', transfers.id, 'debit', debit,
                                      'credit', credit, 'amount_minor', transfers.amount)
              FROM subject
              JOIN transfers
                ON transfers.account_id = $1 AND transfers.kind = subject.kind
               AND transfers.source_id = subject.id
             UNION ALL
            SELECT created_at, 'event', refund_id,
                   jsonb_build_object('event_id', id, 'type', type)
              FROM told
             UNION ALL
            SELECT started_at, 'delivery_attempted', refund_id,
                   jsonb_build_object('event_id', told.id, 'type', told.type,
                       'delivery_id', deliveries.id, 'endpoint_id', endpoint_id, 'url', url,
                       'number', number, 'status_code', status_code, 'duration_ms', duration_ms,
                       'error', error)
              FROM told
              JOIN deliveries ON deliveries.account_id = $1 AND deliveries.event_id = told.id
              JOIN delivery_attempts AS attempt
                ON attempt.account_id = $1 AND attempt.delivery_id = deliveries.id
              JOIN webhook_endpoints AS endpoint
                ON endpoint.account_id = $1 AND endpoint.id = endpoint_id
        )
        SELECT at, step,
               (detail || CASE WHEN refund_id IS NULL THEN '{}'
                               ELSE jsonb_build_object('refund_id', refund_id) END)::text AS detail
          FROM step
        """,
        account_id,
        payment_id,
    )
    steps = [Recorded(row["at"], row["step"], json.loads(row["detail"])) for row in rows]
    return steps or None
