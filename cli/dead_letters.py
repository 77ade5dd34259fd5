"""`./florin dead-letters`: what was put aside for a person, looked at, sent on, or dropped.

The letters are messages in `processor.dead` and `notifier.dead`, each with the reason in a header.
A letter leaves its queue only after what it asks for is safe: interrupted anywhere, a command can
be run again.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cli.store.dead_letters import revive_deliveries
from cli.target import DEFAULT_DATA, AmqpUrl, Data, DatabaseUrl, amqp_url, database_url
from shared.broker import Message, Outgoing, Publisher, open_queue
from shared.db import Database, open_database
from shared.errors import Malformed
from shared.messages import DELIVERIES, EVENTS, PAYMENTS, REFUNDS, Item, decode, encode
from shared.topology import (
    NOTIFIER_DEAD,
    NOTIFIER_DELIVERIES,
    NOTIFIER_EVENTS,
    PROCESSOR_DEAD,
    PROCESSOR_PAYMENTS,
    PROCESSOR_REFUNDS,
    REASON_HEADER,
)

app = typer.Typer(help="What was put aside for a person to look at.", no_args_is_help=True)

_HOMES: Final = {
    PAYMENTS: PROCESSOR_PAYMENTS,
    REFUNDS: PROCESSOR_REFUNDS,
    EVENTS: NOTIFIER_EVENTS,
    DELIVERIES: NOTIFIER_DELIVERIES,
}
"""Where a message of each kind is worked on."""


class DeadQueue(StrEnum):
    """Whose dead letters."""

    PROCESSOR = PROCESSOR_DEAD
    NOTIFIER = NOTIFIER_DEAD


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `kind` is None when the message makes no sense."""

    queue: DeadQueue
    reason: str
    kind: str | None
    items: Sequence[Item]
    body: bytes


class Fate(StrEnum):
    """What became of a letter."""

    SENT_ON = "sent on"
    SETTLED = "settled meanwhile"
    DROPPED = "dropped"
    KEPT = "kept"


def read_letter(queue: DeadQueue, message: Message) -> Letter:
    """What a message in a dead queue says."""
    reason = str(message.headers.get(REASON_HEADER) or _broker_reason(message))
    for kind in _HOMES:
        try:
            return Letter(queue, reason, kind, decode(message.body, kind), message.body)
        except Malformed:
            continue
    return Letter(queue, reason, None, [], message.body)


def _broker_reason(message: Message) -> str:
    """Why RabbitMQ itself put a message aside: it was given back too often."""
    return str(message.headers.get("x-first-death-reason") or "no reason was given")


Queues = Annotated[
    list[DeadQueue] | None, typer.Option("--queue", help="One queue; both when left out.")
]
Reason = Annotated[str, typer.Option(help="Only letters whose reason has this in it.")]


@app.command("list")
def list_(
    *,
    queue: Queues = None,
    reason: Reason = "",
    limit: Annotated[int, typer.Option(min=1, help="Letters to show, of each queue.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    data: Data = DEFAULT_DATA,
    amqp: AmqpUrl = None,
) -> None:
    """Show the dead letters, and why each is one. They stay where they are."""
    asyncio.run(_list(amqp_url(data, amqp), _chosen(queue), reason, limit, as_json=as_json))


@app.command()
def redrive(
    queue: Queues = None,
    reason: Reason = "",
    data: Data = DEFAULT_DATA,
    amqp: AmqpUrl = None,
    url: DatabaseUrl = None,
) -> None:
    """Send dead letters back to where they are worked on; dead deliveries are due at once."""
    asyncio.run(_redrive(amqp_url(data, amqp), database_url(data, url), _chosen(queue), reason))


@app.command()
def drop(
    queue: Queues = None,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = DEFAULT_DATA,
    amqp: AmqpUrl = None,
) -> None:
    """Forget dead letters. What they refer to stays in Postgres as it is."""
    which = f" with {reason!r} in their reason" if reason else ""
    if not yes:
        names = " and ".join(_chosen(queue))
        typer.confirm(f"Drop all letters of {names}{which}?", abort=True)
    asyncio.run(_drop(amqp_url(data, amqp), _chosen(queue), reason))


def _chosen(queues: list[DeadQueue] | None) -> list[DeadQueue]:
    return queues or list(DeadQueue)


async def _list(
    amqp: str, queues: Sequence[DeadQueue], reason: str, limit: int, *, as_json: bool
) -> None:
    console = _console()
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("queue", "kind", "refers to", "reason"):
        table.add_column(name, overflow="fold")
    shown = total = 0
    for queue in queues:
        async with open_queue(amqp, queue) as reader:
            total += reader.depth
            held: list[Message] = []
            matching = 0
            while matching < limit and len(held) < reader.depth:
                message = await reader.get()
                if message is None:
                    break
                held.append(message)
                letter = read_letter(queue, message)
                if reason not in letter.reason:
                    continue
                matching += 1
                if as_json:
                    print(json.dumps(_as_json(letter)))
                else:
                    table.add_row(queue, letter.kind or "?", _references(letter), letter.reason)
            for message in held:
                await reader.give_back(message)
            shown += matching
    if not as_json:
        if shown:
            console.print(table)
        console.print(f"{shown} of {total} dead letters" if total else "no dead letters")


def _as_json(letter: Letter) -> dict[str, object]:
    return {
        "queue": letter.queue,
        "kind": letter.kind,
        "items": [{"account_id": item.account_id, "id": item.id} for item in letter.items],
        "reason": letter.reason,
        "body": letter.body.decode("utf-8", errors="replace")[:2000],
    }


def _references(letter: Letter) -> str:
    if letter.kind is None:
        return letter.body.decode("utf-8", errors="replace")[:60]
    more = f" and {len(letter.items) - 3} more" if len(letter.items) > 3 else ""
    return ", ".join(item.id for item in letter.items[:3]) + more


async def _redrive(amqp: str, database_url_: str, queues: Sequence[DeadQueue], reason: str) -> None:
    database = await open_database(database_url_, service="dead letters", size=1, wait=5)
    publisher = Publisher(amqp, name="dead letters")
    try:

        async def send_on(letter: Letter) -> Fate:
            return await redrive_letter(letter, database, publisher)

        fates = await _deal_with(amqp, queues, reason, send_on)
    finally:
        await publisher.close()
        await database.close()
    _report(
        fates,
        reason,
        kept="cannot be sent on: they make no sense, or their delivery or its endpoint is gone",
    )


async def redrive_letter(letter: Letter, database: Database, publisher: Publisher) -> Fate:
    """Have what a letter refers to worked on again. Raises Transient when that is not safe yet."""
    if letter.kind is None:
        return Fate.KEPT
    items = letter.items
    if letter.kind == DELIVERIES:
        states = await revive_deliveries(database, items)
        items = [item for item in items if states.get(item.id) in ("retrying", "pending")]
        items = [replace(item, by_hand=True) for item in items]
        if not items:
            gone = any(states.get(item.id, "dead") == "dead" for item in letter.items)
            return Fate.KEPT if gone else Fate.SETTLED
    body = encode(letter.kind, items).encode()
    await publisher.publish([Outgoing("", _HOMES[letter.kind], body)])
    return Fate.SENT_ON


async def _drop(amqp: str, queues: Sequence[DeadQueue], reason: str) -> None:
    async def forget(_: Letter) -> Fate:
        return Fate.DROPPED

    _report(await _deal_with(amqp, queues, reason, forget), reason)


async def _deal_with(
    amqp: str,
    queues: Sequence[DeadQueue],
    reason: str,
    act: Callable[[Letter], Awaitable[Fate]],
) -> Counter[Fate]:
    """Act on every letter that is there now and whose reason matches; the others stay."""
    fates: Counter[Fate] = Counter()
    with Progress(console=_console(), transient=True) as progress:
        for queue in queues:
            async with open_queue(amqp, queue) as reader:
                task = progress.add_task(queue, total=reader.depth)
                kept = []
                for _ in range(reader.depth):
                    message = await reader.get()
                    if message is None:
                        break
                    letter = read_letter(queue, message)
                    fate = await act(letter) if reason in letter.reason else None
                    if fate in (Fate.KEPT, None):
                        kept.append(message)
                    else:
                        await reader.take(message)
                    if fate is not None:
                        fates[fate] += 1
                    progress.advance(task)
                for message in kept:
                    await reader.give_back(message)
    return fates


def _report(fates: Counter[Fate], reason: str, *, kept: str = "") -> None:
    console = _console()
    if not fates:
        which = f" with {reason!r} in their reason" if reason else ""
        console.print(f"no dead letters{which}")
    for fate, number in fates.items():
        console.print(f"{number:,} {kept}" if fate is Fate.KEPT else f"{number:,} {fate}")


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 160
    return console
