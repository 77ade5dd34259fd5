"""`./florin bench`: what people type, and the tables they read."""

import asyncio
import json
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import webhooks as scenario

app = typer.Typer(
    help="Measure on a private system, made for it and removed after it.", no_args_is_help=True
)


@app.callback()
def bench() -> None:
    """Measure on a private system, made for it and removed after it."""


@app.command()
def webhooks(
    events: Annotated[int, typer.Option(min=100, help="Payments in each run.")] = 2000,
    rate: Annotated[float, typer.Option(min=1, help="Payments a second.")] = 50.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each has two runs.")] = 3,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="A file for the figures, as JSON.")
    ] = None,
) -> None:
    """A healthy endpoint's latency, alone and beside a dead, a slow and a flapping one."""
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("starting", total=events)
        found = asyncio.run(
            scenario.measure(
                events,
                rate,
                rounds,
                lambda name, done: progress.update(task, description=name, completed=done),
            )
        )
    table = Table(
        title=f"milliseconds from settled to received, {events:,} events at {rate:g}/s",
        box=None,
        padding=(0, 2),
        header_style="bold",
    )
    for name in ("round", "healthy endpoint", "p50", "p90", "p99", "max", "p99 among ÷ alone"):
        table.add_column(name, justify="left" if name == "healthy endpoint" else "right")
    for row in scenario.rows(found):
        table.add_row(*row)
    console.print(table)
    others = ", ".join(f"{name} {found[-1].sent[name]:,}" for name in scenario.BAD)
    console.print(f"requests to the bad ones in the last round: {others}")
    console.print(f"median ratio: {median([one.ratio for one in found]):.2f}")
    if as_json is not None:
        as_json.write_text(json.dumps(scenario.as_json(found), indent=2) + "\n")
