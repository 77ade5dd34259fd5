"""One envelope, from message to ack: every item of it is settled, or put aside with the reason."""

from typing import Generic

from services.processor.settlement import S
from services.processor.settler import Settler
from shared.broker import Delivery
from shared.dead_letters import DeadLetters
from shared.errors import Malformed, Permanent
from shared.messages import decode, encode


class EnvelopeHandler(Generic[S]):
    """What a consumer of processor.payments or processor.refunds does with a message."""

    def __init__(self, settler: Settler[S], dead_letters: DeadLetters) -> None:
        self._settler: Settler[S] = settler
        self._kind = settler.work.kind
        self._dead_letters = dead_letters

    async def handle(self, delivery: Delivery) -> None:
        """Process everything in the envelope; what cannot be goes to the dead queue, alone."""
        try:
            items = decode(delivery.body, self._kind)
        except Malformed as error:
            await self._dead_letters.put(delivery.body, str(error))
            return
        results = await self._settler.process(items)
        for item, result in zip(items, results, strict=True):
            match result:
                case Permanent():
                    await self._dead_letters.put(encode(self._kind, [item]).encode(), str(result))
                case BaseException():
                    raise result
