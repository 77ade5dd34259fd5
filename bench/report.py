"""The figures, for people and for programs."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from bench.figures import Figures, Plan
from bench.machine import Machine
from bench.processes import ROLES, SERVICES
from bench.tally import Percentiles
from shared.errors import Misconfigured
from shared.version import VERSION

_STEPS: Final = {
    "accept": "accept",
    "reserve": "reserve",
    "move payments": "move",
    "record": "record",
}


def table(found: Sequence[Figures]) -> Table:
    """One row for each scenario. Latencies in milliseconds, CPU in microseconds a payment, memory
    in megabytes."""
    shown = _plain_table("payments a second, milliseconds, microseconds of CPU for each payment")
    shown.add_column("scenario")
    for name in ("pay/s", "min–max", "accept\np50", "\np99", "to webhook\np50", "\np99"):
        shown.add_column(name, justify="right", no_wrap=True)
    for role in ROLES:
        shown.add_column(f"{'CPU ' if role == 'api' else ''}\n{_short(role)}", justify="right")
    for name in ("\nsum", "load of\na core", "services\nMB"):
        shown.add_column(name, justify="right")
    shown.add_column("rows in a statement")
    for one in found:
        shown.add_row(*_cells(one))
    return shown


def _short(role: str) -> str:
    return {"processor": "proc.", "notifier": "notif.", "postgres": "pg", "rabbitmq": "rmq"}.get(
        role, role
    )


def _plain_table(title: str) -> Table:
    return Table(title=title, box=None, padding=(0, 1), header_style="bold", title_style="dim")


def _cells(one: Figures) -> list[str]:
    rates = one.rates
    return [
        one.scenario,
        f"{rates.median:,.0f}",
        f"{rates.min:,.0f}–{rates.max:,.0f}",
        *_ms(one.accept),
        *_ms(one.delivered),
        *(f"{one.cpu[role]:,.0f}" if one.cpu[role] else "" for role in ROLES),
        f"{one.cpu_total:,.0f}" if one.cpu_total else "",
        f"{one.load_share:.0%}",
        f"{one.services_memory:,.0f}" if one.services_memory else "",
        ", ".join(
            f"{short} {one.batches[step]:g}"
            for step, short in _STEPS.items()
            if step in one.batches
        ),
    ]


def _ms(latency: Percentiles | None) -> tuple[str, str]:
    if latency is None:
        return "", ""
    return f"{latency.p50:,.0f}", f"{latency.p99:,.0f}"


def remarks(found: Sequence[Figures], machine: Machine) -> list[str]:
    """What the table has no place for."""
    lines = [f"this machine, before: {machine}"]
    for one in found:
        if one.refusals:
            said = ", ".join(f"{number:,} × {status}" for status, number in one.refusals.items())
            lines.append(f"{one.scenario}: refused {said}")
    if verified := sum(one.verified for one in found):
        lines.append(f"signatures verified: {verified:,}; every rule of `florin verify` holds")
    return lines


def as_json(found: Sequence[Figures], plan: Plan, machine: Machine) -> dict[str, Any]:
    """The figures, and on what they were measured."""
    return {
        "version": VERSION,
        "python": platform.python_version(),
        "machine": asdict(machine),
        "seconds": plan.seconds,
        "connections": plan.connections,
        "backlog": plan.backlog,
        "scenarios": {
            one.scenario: {
                **{name: value for name, value in asdict(one).items() if name != "scenario"},
                "cpu_total": round(one.cpu_total, 1),
                "services_memory": round(one.services_memory, 1),
            }
            for one in found
        },
    }


def read_earlier(file: Path) -> dict[str, Any]:
    """The figures of an earlier run, as `--json` wrote them. Raises Misconfigured."""
    try:
        earlier: dict[str, Any] = json.loads(file.read_text())["scenarios"]
    except (OSError, ValueError, KeyError, TypeError):
        raise Misconfigured(
            f"{file} has no figures to compare with: give a file that --json wrote"
        ) from None
    return earlier


def comparison(found: Sequence[Figures], earlier: dict[str, Any]) -> Table:
    """This run ÷ an earlier one, for the scenarios that both have."""
    shown = _plain_table("this run ÷ the earlier one")
    shown.add_column("scenario")
    for name in ("pay/s", "accept p99", "to webhook p99", "CPU", *SERVICES, "pg", "rmq"):
        shown.add_column(name, justify="right")
    for one in found:
        old = earlier.get(one.scenario)
        if old is None:
            continue
        shown.add_row(
            one.scenario,
            _ratio(one.rates.median, old["rates"]["median"]),
            _ratio(_p99(one.accept), old["accept"] and old["accept"]["p99"]),
            _ratio(_p99(one.delivered), old["delivered"] and old["delivered"]["p99"]),
            _ratio(one.cpu_total, old["cpu_total"]),
            *(_ratio(one.cpu[role], old["cpu"][role]) for role in ROLES if role != "load"),
        )
    return shown


def _p99(latency: Percentiles | None) -> float | None:
    return None if latency is None else latency.p99


def _ratio(now: float | None, before: float | None) -> str:
    return f"{now / before:.2f}" if now and before else ""
