"""`./florin COMMAND`: what operators and developers type."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.commands import bench, isolation
from cli import dead_letters, keys
from cli.compose import up_in_containers
from cli.listen import Listening
from cli.listen import listen as run_listen
from cli.target import DEFAULT_DATA, Data, DatabaseUrl, database_url
from cli.up import Options
from cli.up import up as run_up
from cli.verify import GRACE
from cli.verify import verify as run_verify
from deploy.migrate import BootstrapSettings
from deploy.migrate import migrate as run_migrate
from shared import topology as broker
from shared.config import Settings, load
from shared.errors import FlorinError, Misconfigured

ROOT = Path(__file__).parent.parent
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    help="Florin: a payment backend that a small team can trust with money.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.add_typer(dead_letters.app, name="dead-letters")
app.command()(bench)
app.command("bench-isolation")(isolation)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.")] = 8080,
    data: Annotated[Path, typer.Option(help="Where the data and logs are.")] = Path(".florin"),
    quiet: Annotated[bool, typer.Option(help="Print the URL, and errors.")] = False,
    docker: Annotated[
        bool, typer.Option("--docker", help="As containers, by docker compose.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address of the API; off loopback each request needs a key.")
    ] = "127.0.0.1",
) -> None:
    """Run everything here: Postgres, RabbitMQ and the three services, until Ctrl-C."""
    if docker and host != "127.0.0.1":
        raise Misconfigured("containers are published by FLORIN_PUBLISH: see docs/deploy.md")
    if docker:
        raise typer.Exit(up_in_containers(port, quiet=quiet))
    raise typer.Exit(run_up(Options(host=host, port=port, data=data.resolve(), quiet=quiet)))


@app.command()
def migrate() -> None:
    """Bring the schema of FLORIN_DATABASE_URL up to date. Run it at each deploy."""
    settings = load(BootstrapSettings)
    key = settings.bootstrap_key
    applied, made = asyncio.run(
        run_migrate(
            settings.database_url.get_secret_value(),
            first_key=key.get_secret_value() if key else None,
        )
    )
    for migration in applied:
        typer.echo(f"applied {migration.version:04} {migration.name}")
    if not applied:
        typer.echo("the schema is up to date")
    if made:
        typer.echo(f"the default account's first key, shown this once: {made}")


@app.command()
def topology() -> None:
    """Declare the exchanges and queues at FLORIN_AMQP_URL. Run it at each deploy."""
    settings = load(Settings)
    described = broker.describe(settings.webhook_retry_delays)
    asyncio.run(broker.apply(settings.amqp_url.get_secret_value(), described))
    typer.echo(f"{len(described.exchanges)} exchanges and {len(described.queues)} queues are there")


@app.command()
def verify(
    data: Data = DEFAULT_DATA,
    url: DatabaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    grace: Annotated[
        float, typer.Option(help="Seconds in which an event may lack its deliveries.")
    ] = GRACE,
) -> None:
    """Prove on a live system that no cent is lost. Exit status 1 when a rule is broken."""
    raise typer.Exit(asyncio.run(run_verify(database_url(data, url), as_json=as_json, grace=grace)))


@app.command()
def listen(
    *,
    forward_to: Annotated[str, typer.Option(help="Where events are posted, as webhooks are.")],
    events: Annotated[
        list[str] | None, typer.Option(help="Types to forward, separated by commas; all if none.")
    ] = None,
    url: Annotated[str, typer.Option(help="Florin's API.")] = "http://127.0.0.1:8080",
    after: Annotated[
        int | None, typer.Option(help="Begin behind the event of this number, not now.")
    ] = None,
) -> None:
    """Forward the account's events to a server on this machine, signed, as they happen.

    FLORIN_API_KEY is the account's key, not needed for `./florin up`. FLORIN_LISTEN_SECRET is the
    secret that signs; when it is not set, one is made and shown.
    """
    types = [type_ for listed in events or () for type_ in listed.split(",") if type_]
    listening = Listening(
        url=url.rstrip("/"),
        forward_to=forward_to if "://" in forward_to else f"http://{forward_to}",
        types=types,
        after=after,
        key=os.environ.get("FLORIN_API_KEY"),
        secret=os.environ.get("FLORIN_LISTEN_SECRET"),
    )
    raise typer.Exit(asyncio.run(run_listen(listening)))


@app.command(context_settings=PASS_ON)
def test(context: typer.Context) -> None:
    """Run the tests, all of them or those that pytest's arguments name."""
    raise typer.Exit(_run(sys.executable, "-m", "pytest", *context.args))


@app.command()
def check() -> None:
    """The fast part of the tests: format, lint, types, imports, unit."""
    steps = (
        ("format", ("ruff", "format", "--check", "--quiet", ".")),
        ("lint", ("ruff", "check", "--quiet", ".")),
        ("types", ("mypy",)),
        ("imports", ("importlinter.cli", "lint")),
        ("unit", ("pytest", "-q", "tests/unit")),
    )
    failed = []
    for name, (module, *arguments) in steps:
        typer.echo(f"── {name}")
        if _run(sys.executable, "-m", module, *arguments):
            failed.append(name)
    typer.echo(f"failed: {', '.join(failed)}" if failed else "all good")
    raise typer.Exit(1 if failed else 0)


@app.command()
def lock() -> None:
    """Pin the newest dependencies, with hashes and without addresses."""
    for name in ("requirements", "requirements-bench", "requirements-dev"):
        options = [
            "--universal",
            "--python-version",
            "3.11",
            "--generate-hashes",
            "--no-emit-index-url",
            "--no-header",
            "--no-annotate",
            "--upgrade",
            "--quiet",
        ]
        status = _run(
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            *options,
            f"{name}.in",
            "--output-file",
            f"{name}.txt",
        )
        if status:
            raise typer.Exit(status)


def _run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> None:
    """Run a command; an error of operation is a line that says what to do, not a traceback."""
    try:
        app()
    except FlorinError as error:
        sys.exit(f"florin: {error}")


if __name__ == "__main__":
    main()
