"""What each process costs: CPU seconds and memory, read from a private system's process tree."""

import os
import time
from dataclasses import dataclass
from typing import Final

import psutil

ROLES: Final = ("api", "processor", "notifier", "postgres", "rabbitmq", "load")
SERVICES: Final = ("api", "processor", "notifier")
_MEGABYTE: Final = 1024 * 1024
_OF_THE_PEER: Final = {"uvicorn": "api", "celery": "processor"}
"""Programs of the system to compare with. Its one worker settles and delivers."""


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds that each role has used so far, and when it was looked at (monotonic seconds)."""

    at: float
    cpu: dict[str, float]


def role_of(command: list[str]) -> str | None:
    """What a process of the system is, by its command line; None for what is none of it."""
    line = " ".join(command)
    for service in SERVICES:
        if f"services.{service}" in line:
            return service
    for program, service in _OF_THE_PEER.items():
        if program in command:
            return service
    if "bench.hello" in line:
        return "api"
    if command and "postgres" in os.path.basename(command[0]):
        return "postgres"
    if "beam" in line or "erl" in line or "epmd" in line or "rabbitmq" in line:
        return "rabbitmq"
    return None


class Processes:
    """The processes of one private system, and this one, which makes the load. None but this one of
    a system that is not ours."""

    def __init__(self, supervisor: int | None) -> None:
        self._supervisor = None if supervisor is None else psutil.Process(supervisor)
        self._load = psutil.Process()
        self._seen: list[tuple[psutil.Process, str]] | None = None

    def look(self) -> None:
        """See what runs now, for the next reading alone: to look takes longer than to read."""
        self._seen = self._living()

    def read(self) -> Reading:
        """The CPU seconds of each role. What a child used counts for its parent when it has ended,
        so that a backend of Postgres that came and went is not lost."""
        cpu = dict.fromkeys(ROLES, 0.0)
        seen, self._seen = self._seen or self._living(), None
        for process, role in seen:
            with_children = role == "postgres"
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            cpu[role] += times.user + times.system
            if with_children:
                cpu[role] += times.children_user + times.children_system
        mine = self._load.cpu_times()
        cpu["load"] = mine.user + mine.system
        return Reading(time.monotonic(), cpu)

    def memory(self) -> dict[str, float]:
        """Megabytes of each role: what is its own, and its share of what is shared (PSS)."""
        megabytes = dict.fromkeys(ROLES, 0.0)
        for process, role in [*self._living(), (self._load, "load")]:
            try:
                megabytes[role] += process.memory_full_info().pss / _MEGABYTE
            except psutil.NoSuchProcess:
                continue
        return megabytes

    def of(self, service: str) -> psutil.Process:
        """The process of a service. Raises LookupError when it does not run."""
        return self.all_of(service)[0]

    def all_of(self, service: str) -> list[psutil.Process]:
        """The processes of a service that has several, parents first. Raises LookupError when
        there is none."""
        found = [process for process, role in self._living() if role == service]
        if not found:
            raise LookupError(f"no process of {service}")
        return sorted(found, key=lambda process: process.create_time())

    def _living(self) -> list[tuple[psutil.Process, str]]:
        if self._supervisor is None:
            return []
        found = []
        for process in (self._supervisor, *self._supervisor.children(recursive=True)):
            try:
                role = role_of(process.cmdline())
            except psutil.Error:
                continue
            if role is not None:
                found.append((process, role))
        return found


def spent(before: Reading, after: Reading) -> dict[str, float]:
    """CPU seconds of each role between two readings."""
    return {role: max(0.0, after.cpu[role] - before.cpu[role]) for role in ROLES}
