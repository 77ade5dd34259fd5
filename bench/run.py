"""Runs the scenarios that were asked for, and shows what they came to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench import report
from bench.figures import Figures, Plan
from bench.machine import measure_machine
from bench.plot import draw
from bench.scenarios import SCENARIOS
from bench.system import run_to_its_end
from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Output:
    """Where the figures go besides the terminal."""

    json: Path | None = None
    plot: Path | None = None
    compare: Path | None = None


def run(names: Sequence[str], plan: Plan, output: Output) -> None:
    """Measure, and print one table. Raises Broken when a rule was, and Misconfigured."""
    earlier = None if output.compare is None else report.read_earlier(output.compare)
    shown = console()
    machine = measure_machine()
    try:
        found = run_to_its_end(_measure(names, plan, shown))
    except (aiohttp.ClientError, OSError) as error:
        where = "a private system" if plan.given is None else plan.given.url
        raise Misconfigured(f"{where} could not be measured: {error}") from None
    shown.print(report.table(found))
    for line in report.remarks(found, machine):
        shown.print(Text(line, style="dim"))
    if earlier is not None:
        shown.print()
        shown.print(report.comparison(found, earlier))
    if output.json is not None:
        output.json.write_text(json.dumps(report.as_json(found, plan, machine), indent=2) + "\n")
    if output.plot is not None:
        draw(found, output.plot)


async def _measure(names: Sequence[str], plan: Plan, console: Console) -> list[Figures]:
    found: list[Figures] = []
    with progress(console) as shown:
        task = shown.add_task("", total=len(names))
        for name in names:
            found += await SCENARIOS[name](plan, lambda text: shown.update(task, description=text))
            shown.advance(task)
    return found


def progress(console: Console) -> Progress:
    """What people see while it runs."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def console() -> Console:
    """Wide where nobody's terminal says how wide."""
    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = 190
    return made
