"""Finds the programs of Postgres and RabbitMQ on this machine, or installs them with apt."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import Misconfigured

OLDEST_POSTGRES: Final = 15
_POLICY: Final = Path("/usr/sbin/policy-rc.d")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are."""

    postgres: Path
    """The directory of initdb and postgres."""
    rabbitmq: Path
    """The server's own start script, not the wrapper that insists on a user."""
    epmd: Path
    """Erlang's port mapper."""


def find_or_install(say: Say) -> Binaries:
    """The programs, installed with apt where they are missing and that is possible.

    Raises Misconfigured with the command to run where it is not.
    """
    postgres, rabbitmq = find_postgres(), find_rabbitmq()
    missing = [
        package
        for package, found in (("postgresql", postgres), ("rabbitmq-server", rabbitmq))
        if found is None
    ]
    if missing:
        _install(missing, say)
        postgres, rabbitmq = find_postgres(), find_rabbitmq()
    epmd = _find_epmd()
    if postgres is None or rabbitmq is None or epmd is None:
        raise Misconfigured(
            f"no usable {'Postgres' if postgres is None else 'RabbitMQ'} after installing"
            f" {', '.join(missing)}. Florin needs Postgres {OLDEST_POSTGRES} or newer and RabbitMQ"
            " 3.10 or newer; or set FLORIN_DATABASE_URL and FLORIN_AMQP_URL to servers that run"
        )
    return Binaries(postgres, rabbitmq, epmd)


def find_postgres() -> Path | None:
    """The directory of the newest Postgres that is new enough."""
    candidates = [Path(directory) for directory in os.environ.get("PATH", "").split(os.pathsep)]
    candidates += Path("/usr/lib/postgresql").glob("*/bin")
    candidates += Path("/usr").glob("pgsql-*/bin")
    found = {
        version: directory
        for directory in reversed(candidates)
        if (directory / "initdb").is_file()
        and (version := _postgres_version(directory / "postgres")) >= OLDEST_POSTGRES
    }
    return found[max(found)] if found else None


def find_rabbitmq() -> Path | None:
    """RabbitMQ's own start script."""
    candidates = [Path("/usr/lib/rabbitmq/bin/rabbitmq-server")]
    candidates += Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")
    candidates += Path("/opt/rabbitmq").glob("sbin/rabbitmq-server")
    return next((path for path in candidates if path.is_file()), None)


def _find_epmd() -> Path | None:
    found = shutil.which("epmd")
    candidates = sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"), reverse=True)
    return candidates[0] if candidates else Path(found) if found else None


def _postgres_version(program: Path) -> int:
    if not program.is_file():
        return 0
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(match[1]) if match else 0


def _install(packages: list[str], say: Say) -> None:
    names = " and ".join(packages)
    by_hand = f"`apt-get install {' '.join(packages)}`"
    apt = shutil.which("apt-get")
    if apt is None:
        raise Misconfigured(
            f"{names} not found, and there is no apt-get here to install them. Install Postgres"
            f" {OLDEST_POSTGRES}+ and RabbitMQ 3.10+, or set FLORIN_DATABASE_URL and"
            " FLORIN_AMQP_URL to servers that run"
        )
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode:
        raise Misconfigured(f"{names} not found, and installing needs root: run sudo {by_hand}")
    say(f"installing {names} with apt, once (their own services are not started)")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    policy_is_ours = not sudo and not _POLICY.exists()
    if policy_is_ours:
        # Debian starts what it installs; this instance must be the private one only.
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        for command in (
            [*sudo, apt, "update", "-qq"],
            [*sudo, apt, "install", "-y", "-qq", "--no-install-recommends", *packages],
        ):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
                raise Misconfigured(
                    f"`{' '.join(command)}` failed:\n  "
                    + "\n  ".join(last)
                    + f"\nInstall them by hand with {by_hand}, then try again"
                )
    finally:
        if policy_is_ours:
            _POLICY.unlink(missing_ok=True)
