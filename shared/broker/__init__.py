"""RabbitMQ at the edge: a publisher with confirms, and consumers that ack what is finished.

Both keep one plain connection and build a new one when it is lost; nothing of an old connection
survives into the new. Neither declares anything: `shared.topology` does, in a deploy step, because
a declare that drifted would make every reconnection fail for ever.
"""

from shared.broker.connection import BrokerUnavailable, connect, queue_depth
from shared.broker.consumer import Consumer, Delivery
from shared.broker.publisher import Outgoing, Publisher
from shared.broker.reader import Message, QueueReader, open_queue

__all__ = [
    "BrokerUnavailable",
    "Consumer",
    "Delivery",
    "Message",
    "Outgoing",
    "Publisher",
    "QueueReader",
    "connect",
    "open_queue",
    "queue_depth",
]
