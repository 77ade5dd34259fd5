"""`./florin bench`: what people type. What measures is imported when it is asked for: its libraries
are installed for this command alone."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from shared.errors import Misconfigured


class Scenario(StrEnum):
    """What can be measured, in the order in which it is."""

    E2E = "e2e"
    CURVE = "curve"
    ACCEPT = "accept"
    SETTLE = "settle"
    HOT = "hot"
    SPREAD = "spread"
    REFUNDS = "refunds"
    DUPLICATES = "duplicates"
    WEBHOOKS = "webhooks"
    GROWTH = "growth"
    OVERLOAD = "overload"


def bench(
    scenarios: Annotated[
        list[Scenario] | None, typer.Argument(help="What to measure; all when none is named.")
    ] = None,
    *,
    seconds: Annotated[float, typer.Option(min=1, help="How long each is measured.")] = 15.0,
    connections: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 256,
    backlog: Annotated[
        int, typer.Option(min=1, help="Payments accepted and not yet delivered, at most.")
    ] = 1_000,
    rate: Annotated[
        float | None,
        typer.Option(min=1, help="Payments a second, where a scenario offers a rate."),
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="A file for the figures.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Figures of an earlier run, to compare with.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="A file for a picture: .svg or .png.")] = None,
    peer: Annotated[
        bool,
        typer.Option(
            help="Instead: Florin, FastAPI with Celery in two variants, and pgbench, in turn."
        ),
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of --peer.")] = 3,
    url: Annotated[
        str | None,
        typer.Option(help="A system that runs already; FLORIN_API_KEY is an account's key."),
    ] = None,
) -> None:
    """Measure from end to end, on private systems made for it and removed after it.

    Each scenario is verified by the rules of `florin verify` when it is over. With --url, payments
    are made in that system, and verified where FLORIN_DATABASE_URL is set.
    """
    from bench.figures import Plan  # noqa: PLC0415
    from bench.run import Output, console, run  # noqa: PLC0415
    from bench.system import System  # noqa: PLC0415

    given = None
    if url is not None:
        key = os.environ.get("FLORIN_API_KEY")
        if not key:
            raise Misconfigured("--url needs the key of an account of that system: FLORIN_API_KEY")
        given = System(url.rstrip("/"), os.environ.get("FLORIN_DATABASE_URL"), key, None)
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise Misconfigured(f"--plot writes .svg or .png, not {plot.suffix or plot.name!r}")
    if peer and (url or scenarios):
        raise Misconfigured("--peer has its own scenarios, on private systems: say it alone")
    plan = Plan(seconds=seconds, connections=connections, backlog=backlog, rate=rate, given=given)
    if peer:
        from bench import rivals  # noqa: PLC0415

        rivals.run(plan, rounds, as_json, console())
        return
    names = [str(name) for name in scenarios or Scenario]
    run(names, plan, Output(json=as_json, plot=plot, compare=compare))


def isolation(
    events: Annotated[int, typer.Option(min=100, help="Payments in each run.")] = 2000,
    rate: Annotated[float, typer.Option(min=1, help="Payments a second.")] = 50.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each has two runs.")] = 3,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="A file for the figures, as JSON.")
    ] = None,
) -> None:
    """A healthy endpoint's latency, alone and beside a dead, a slow and a flapping one."""
    from bench.isolation import run  # noqa: PLC0415

    run(events, rate, rounds, as_json)
