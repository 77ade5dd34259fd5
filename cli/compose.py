"""`./florin up --docker`: the same system as containers, by docker compose."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.welcome import Management, greet
from shared.errors import FlorinError, Misconfigured

ROOT: Final = Path(__file__).parent.parent
PATIENCE: Final = 180.0
"""Seconds from when everything has started until it must be healthy."""
_RUNS: Final = {"healthy", "unhealthy", "starting", "running", "restarting"}
_WELL: Final = {"healthy", "done", "running"}
_COLOURS: Final = {"healthy": "green", "done": "dim", "starting": "yellow", "created": "dim"}


def up_in_containers(port: int, *, quiet: bool) -> int:
    """Build, start, wait until everything is healthy, and run until Ctrl-C; then drain and stop.

    Returns the exit status.
    """
    console = Console(highlight=False)
    ending = Ending()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.ask())
    try:
        stack = Stack.find(port)
        if any(state in _RUNS for state in stack.states().values()):
            raise Misconfigured(
                "the stack runs already: `docker compose ps` shows it, and `down` ends it"
            )
        if not quiet:
            console.print("  building the image, once for each version")
        stack.run("build", "--quiet")
        try:
            with ThreadPoolExecutor(1) as aside:
                starting = aside.submit(stack.run, "up", "--detach")
                _wait_until_healthy(stack, starting, console, ending, quiet=quiet)
            if not ending.asked:
                _welcome(stack, console, quiet=quiet)
            ending.wait()
        finally:
            if not quiet:
                console.print("  draining: finishing what was accepted, then stopping")
            stack.run("down")
            if not quiet:
                console.print("  stopped; the data stays in its volumes")
    except FlorinError as error:
        console.print(Text(f"florin: {error}", style="red"), soft_wrap=True)
        return 1
    return 0


@dataclass(slots=True)
class Ending:
    """Whether somebody asked for the end. No lock: a signal may come at any line."""

    asked: bool = False

    def ask(self) -> None:
        """Have it end."""
        self.asked = True

    def wait(self, seconds: float = float("inf")) -> None:
        """Return when it is asked for, at the latest after `seconds`."""
        until = time.monotonic() + seconds
        while not self.asked and time.monotonic() < until:
            time.sleep(0.1)


class Stack:
    """The stack of docker-compose.yml in this directory."""

    def __init__(self, compose: list[str], port: int) -> None:
        self._compose = [*compose, "--file", str(ROOT / "docker-compose.yml")]
        self.port = port
        self._environment = {**os.environ, "FLORIN_PORTS": str(port)}

    @staticmethod
    def find(port: int) -> "Stack":
        """With the compose command that is here. Raises Misconfigured when there is none, and when
        no Docker engine answers."""
        if shutil.which("docker") is None:
            raise Misconfigured("no `docker` is on PATH: install it, or leave --docker out")
        if _status("docker", "info"):
            raise Misconfigured("no Docker engine answers: start it, or leave --docker out")
        for command in (["docker", "compose"], ["docker-compose"]):
            if shutil.which(command[0]) and not _status(*command, "version"):
                return Stack(command, port)
        raise Misconfigured(
            "there is neither `docker compose` nor `docker-compose`: install the compose plugin"
        )

    def run(self, *arguments: str, **environment: str) -> str:
        """What a command of compose prints. Raises Misconfigured with its last words."""
        done = subprocess.run(
            [*self._compose, *arguments],
            cwd=ROOT,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            check=False,
            # Ctrl-C is for us: what compose is doing is finished, and then everything is stopped.
            start_new_session=True,
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()[-5:]
            raise Misconfigured(f"`compose {arguments[0]}` failed:\n  " + "\n  ".join(words))
        return done.stdout

    def states(self) -> dict[str, str]:
        """What each container is doing, by its name."""
        ids = self.run("ps", "--all", "--quiet").split()
        if not ids:
            return {}
        # One that went away meanwhile is left out, and told on standard error.
        shown = subprocess.run(
            ["docker", "inspect", *ids], capture_output=True, text=True, check=False
        ).stdout
        return {
            one["Name"].lstrip("/"): state_of(one["State"]) for one in json.loads(shown or "[]")
        }


def state_of(state: Mapping[str, Any]) -> str:
    """One word for what Docker says of a container."""
    if state["Status"] == "exited":
        return "done" if state["ExitCode"] == 0 else f"failed ({state['ExitCode']})"
    health = state.get("Health")
    return str(health["Status"] if health else state["Status"])


def _wait_until_healthy(
    stack: Stack,
    starting: "Future[str]",
    console: Console,
    ending: Ending,
    *,
    quiet: bool,
) -> None:
    deadline = float("inf")
    states = stack.states()
    is_live = console.is_terminal and not quiet
    with Live(_table(states), console=console, transient=True, auto_refresh=is_live) as live:
        while not ending.asked and not (starting.done() and set(states.values()) <= _WELL):
            if starting.done():
                starting.result()
                deadline = min(deadline, time.monotonic() + PATIENCE)
            if time.monotonic() > deadline:
                raise Misconfigured(
                    f"not healthy within {PATIENCE:g} s: "
                    + ", ".join(f"{name} is {state}" for name, state in sorted(states.items()))
                    + "; `docker compose logs` says why"
                )
            ending.wait(0.5)
            states = stack.states()
            live.update(_table(states) if is_live else "")
    if not quiet:
        console.print(_table(states))


def _table(states: Mapping[str, str]) -> Table:
    table = Table(box=None, padding=(0, 2), show_header=False)
    for name, state in sorted(states.items()):
        table.add_row(f"  {name}", Text(state, style=_COLOURS.get(state, "red")))
    return table


def _welcome(stack: Stack, console: Console, *, quiet: bool) -> None:
    url = f"http://{stack.run('port', 'api', '8080').strip()}"
    if quiet:
        console.print(url)
        return

    def secret(name: str) -> str:
        return stack.run("exec", "-T", "api", "cat", f"/run/secrets/{name}").strip()

    management = f"http://{stack.run('port', 'rabbitmq', '15672').strip()}"
    greet(
        console,
        url,
        secret("florin_bootstrap_key"),
        Management(management, "florin", secret("rabbitmq_password")),
    )


def _status(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode
