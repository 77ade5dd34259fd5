"""`./florin verify`: proves on a live system that no cent is lost, from one consistent snapshot.

Postgres compares whole tables; nothing but what breaks a rule comes here, so memory stays flat.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from cli.store.checks import (
    AGES,
    CHECKS,
    count_checked,
    find_broken,
    find_oldest,
    prepare_to_compare,
)
from shared.db import Database, open_database

GRACE: Final = 300.0
"""Seconds in which an event may still be without its deliveries: the sweeper looks after 60."""
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule came to. `age` and `limit` are seconds, for the rules about waiting."""

    invariant: int
    rule: str
    checked: int | None
    violations: int
    offending: list[tuple[str, str]]
    age: float | None = None
    limit: float | None = None


async def examine(
    database: Database, *, grace: float = GRACE, step: Callable[[str], None] = lambda _: None
) -> list[Finding]:
    """Check every rule on one snapshot of `database`; `step` is told of each before it begins."""
    async with database.transaction() as snapshot:
        await prepare_to_compare(snapshot)
        findings = []
        for check in CHECKS:
            step(check.rule)
            checked = await count_checked(snapshot, check, grace)
            count, offending = await find_broken(snapshot, check, grace, SHOWN)
            findings.append(Finding(check.invariant, check.rule, checked, count, offending))
        for age in AGES:
            step(age.rule)
            seconds, id_ = await find_oldest(snapshot, age)
            late = seconds > age.limit
            offending = [(id_ or "", f"for {seconds:.0f} s")] if late else []
            findings.append(Finding(6, age.rule, None, int(late), offending, seconds, age.limit))
    return findings


async def verify(url: str, *, as_json: bool, grace: float) -> int:
    """Print what was found; returns the exit status, 1 when a rule is broken."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    steps = len(CHECKS) + len(AGES)
    with Progress(console=console, transient=True, disable=as_json) as progress:
        task = progress.add_task("", total=steps)
        database = await open_database(url, service="verify", size=1, wait=5, patient=True)
        try:
            findings = await examine(
                database,
                grace=grace,
                step=lambda rule: progress.update(task, advance=1, description=rule),
            )
        finally:
            await database.close()
    broken = [finding for finding in findings if finding.violations]
    if as_json:
        print(json.dumps({"ok": not broken, "findings": [asdict(f) for f in findings]}))
        return 1 if broken else 0
    console.print(_table(findings))
    for finding in broken:
        console.print(Text(f"\n{finding.rule}: {finding.violations} broken", style="red"))
        for id_, why in finding.offending:
            console.print(Text(f"  {id_}  {why}"), soft_wrap=True)
    console.print(
        "\nbroken" if broken else "\nevery rule holds", style="red" if broken else "green"
    )
    return 1 if broken else 0


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name, side in (("", "right"), ("rule", "left"), ("checked", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for name in ("violations", "oldest", "limit"):
        table.add_column(name, justify="right")
    for finding in findings:
        table.add_row(
            str(finding.invariant),
            finding.rule,
            "" if finding.checked is None else f"{finding.checked:,}",
            Text(f"{finding.violations:,}", style="red" if finding.violations else "green"),
            "" if finding.age is None else f"{finding.age:.1f} s",
            "" if finding.limit is None else f"{finding.limit:.0f} s",
        )
    return table
