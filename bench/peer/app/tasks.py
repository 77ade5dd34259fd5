"""What the Celery worker does: settles payments, and delivers what is to be heard of them.

Tasks are acknowledged when they are done (`acks_late`) and may come twice; each looks at what the
database says first.
"""

from pathlib import Path

from celery import Celery, Task
from celery.signals import worker_process_init, worker_ready
from kombu import Exchange, Queue

from . import access, config, gateway, webhooks
from .database import engine

_EXCHANGE = Exchange("peer", type="topic")  # delayed delivery of retries needs a topic
_QUORUM = {"x-queue-type": "quorum"}

app = Celery("peer", broker=config.BROKER_URL)
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    task_queues=[
        Queue("payments", _EXCHANGE, routing_key="payments", queue_arguments=_QUORUM),
        Queue("webhooks", _EXCHANGE, routing_key="webhooks", queue_arguments=_QUORUM),
    ],
    task_default_queue="payments",
    task_default_queue_type="quorum",
    task_default_exchange_type="topic",
    task_routes={
        "payments.settle": {"queue": "payments", "routing_key": "payments"},
        "webhooks.deliver": {"queue": "webhooks", "routing_key": "webhooks"},
    },
    worker_detect_quorum_queues=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
)


class NotDelivered(Exception):  # noqa: N818 - it says what happened
    """The endpoint did not take a delivery."""


@app.task(name="payments.settle")
def settle(payment_id: str) -> None:
    """Bring a payment to its end, and have its webhooks delivered."""
    payment = access.claim(payment_id)
    if payment.status == "processing":
        opened = access.complete(payment_id, gateway.charge(payment_id))
    else:
        opened = access.find_open_deliveries(payment_id)
    for delivery_id in opened:
        deliver.delay(delivery_id)


@app.task(
    name="webhooks.deliver",
    bind=True,
    autoretry_for=(NotDelivered,),
    retry_backoff=True,
    retry_backoff_max=3600,
    max_retries=10,
)
def deliver(task: Task, delivery_id: int) -> None:
    """Attempt a delivery; one that fails is tried again, ever more rarely."""
    outgoing = access.load_delivery(delivery_id)
    if outgoing is None:
        return
    attempt = webhooks.send(outgoing)
    access.record_attempt(
        delivery_id, attempt, is_last=task.request.retries >= (task.max_retries or 0)
    )
    if not attempt.succeeded:
        raise NotDelivered(attempt.error or f"status {attempt.status_code}")


@worker_process_init.connect
def _forget_connections(**_: object) -> None:
    """What the parent has open is not the child's."""
    engine.dispose(close=False)


@worker_ready.connect
def _say_so(**_: object) -> None:
    if config.READY_FILE is not None:
        Path(config.READY_FILE).touch()
