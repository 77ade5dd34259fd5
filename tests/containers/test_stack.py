"""docker-compose.yml from nothing to healthy, used as a merchant would, killed, scaled and drained.

Run where a Docker engine answers and docker compose is there; skipped with a word elsewhere.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tomllib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cli.compose import Stack
from deploy.local.ports import free_port, is_free
from shared.config import Settings, load
from shared.errors import Misconfigured
from shared.topology import describe
from tests.system import ROOT, Load, eventually, payment_body, run_command
from tests.tour import take_the_tour

pytestmark = pytest.mark.timeout(240)
SERVICES = ("api", "processor", "notifier")
PATIENCE = 90.0
REPLICAS = 4


def ports_in_a_row(number: int) -> int:
    """The first of so many free ports."""
    while True:
        first = random.randrange(18_000, 29_000)
        if all(is_free(port) for port in range(first, first + number)):
            return first


async def inspect(stack: Stack, service: str) -> list[dict[str, Any]]:
    """What Docker knows of a service's containers."""
    ids = (await asyncio.to_thread(stack.run, "ps", "-a", "-q", service)).split()
    shown = await asyncio.to_thread(subprocess.check_output, ["docker", "inspect", *ids])
    found: list[dict[str, Any]] = json.loads(shown)
    return found


async def run(stack: Stack, *arguments: str, **environment: str) -> str:
    return await asyncio.to_thread(stack.run, *arguments, **environment)


async def inside(stack: Stack, service: str, *command: str) -> str:
    """What a command in a service's container prints."""
    return await run(stack, "exec", "-T", service, *command)


async def healthy(stack: Stack) -> None:
    async def is_healthy() -> bool:
        states = await asyncio.to_thread(stack.states)
        failed = {name: state for name, state in states.items() if state.startswith("failed")}
        assert not failed, failed
        return not set(states.values()) - {"healthy", "done", "running"}

    await eventually(is_healthy, PATIENCE, 0.5)


async def addresses(stack: Stack) -> list[str]:
    """Where each replica of the API is published."""
    return [
        f"http://127.0.0.1:{binding['HostPort']}"
        for container in await inspect(stack, "api")
        for binding in container["NetworkSettings"]["Ports"]["8080/tcp"]
    ]


async def completed(url: str, ids: list[str]) -> None:
    """Wait until each of these payments has its outcome."""
    async with aiohttp.ClientSession(url) as session:

        async def is_completed(id_: str) -> bool:
            async with session.get(
                f"/api/v1/payments/{id_}", headers={"X-User-ID": id_}
            ) as response:
                answer = await response.json()
                return response.status == 200 and answer["payment"]["status"] == "completed"

        for id_ in ids:
            await eventually(lambda id_=id_: is_completed(id_), PATIENCE)  # type: ignore[misc]


async def settled(container: str) -> float:
    """How many payments the processor in this container has settled."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8081/metrics').read().decode())"
    text = await asyncio.to_thread(
        subprocess.check_output, ["docker", "exec", container, "python", "-c", ask], text=True
    )
    return sum(
        float(n) for n in re.findall(r"^florin_settled_total\{.*\} (\S+)$", text, re.MULTILINE)
    )


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    """The stack, up from nothing: no image of ours, no volume, no secret."""
    port = ports_in_a_row(REPLICAS)
    environment = {
        "COMPOSE_PROJECT_NAME": f"florin-test-{uuid.uuid4().hex[:8]}",
        "FLORIN_IMAGE": "florin:test",
        "FLORIN_MANAGEMENT_PORT": str(free_port()),
        "PROMETHEUS_PORT": str(free_port()),
    }
    os.environ.update(environment)
    try:
        stack = Stack.find(port)
    except Misconfigured as error:
        pytest.skip(str(error))
    try:
        await run(stack, "build")
        await run(stack, "up", "-d")
        await healthy(stack)
        yield stack
    finally:
        await run(stack, "--profile", "observability", "down", "-v", "-t", "10")
        for name in environment:
            del os.environ[name]


async def verified(stack: Stack) -> None:
    """Every rule of `florin verify` holds, in the stack's own words."""
    assert "every rule holds" in await inside(stack, "api", "florin", "verify")


async def test_the_tour_of_the_readme_passes(stack: Stack, tmp_path: Path) -> None:
    await take_the_tour(stack.port, free_port(), tmp_path, in_containers=True)
    await verified(stack)


async def test_the_queues_are_seen_by_name_in_the_management_ui_on_loopback(stack: Stack) -> None:
    password = (await inside(stack, "api", "cat", "/run/secrets/rabbitmq_password")).strip()
    [container] = await inspect(stack, "rabbitmq")
    [binding] = container["NetworkSettings"]["Ports"]["15672/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{binding['HostPort']}",
        headers={"Authorization": aiohttp.encode_basic_auth("florin", password)},
    ) as session:
        async with session.get("/") as page:
            assert "RabbitMQ" in await page.text()
        async with session.get("/api/queues") as response:
            queues = {queue["name"]: queue["type"] for queue in await response.json()}
    delays = load(Settings).webhook_retry_delays
    assert queues == {queue.name: "quorum" for queue in describe(delays).queues}


@pytest.mark.parametrize("service", SERVICES)
async def test_services_are_nobody_on_a_file_system_that_cannot_be_written(
    service: str, stack: Stack
) -> None:
    assert (await inside(stack, service, "id", "-u")).strip() == "10001"
    for path in ("/app", "/venv", "/run/secrets", "/"):
        told = await inside(stack, service, "sh", "-c", f"touch {path}/x 2>&1 || true")
        assert "Read-only file system" in told, path
    status = await inside(stack, service, "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


async def test_no_secret_is_in_a_log_or_in_what_docker_shows(stack: Stack) -> None:
    names = (await inside(stack, "api", "ls", "/run/secrets")).split()
    secrets = [await inside(stack, "api", "cat", f"/run/secrets/{name}") for name in names]
    assert len(secrets) == 5
    told = await run(stack, "logs", "--no-color")
    for service in (*SERVICES, "secrets", "migrate", "topology", "postgres", "rabbitmq"):
        told += json.dumps(await inspect(stack, service))
    for secret in secrets:
        # Of a URL, the part that is secret.
        in_url = re.search(r"://florin:(.+)@", secret)
        assert (in_url[1] if in_url else secret.strip()) not in told


async def test_a_processor_that_is_killed_mid_load_loses_nothing(stack: Stack) -> None:
    traffic = Load(f"http://127.0.0.1:{stack.port}")
    async with traffic.running():
        for _ in range(2):
            await traffic.more(100)
            await run(stack, "kill", "-s", "KILL", "processor")
            await traffic.more(50)
            await run(stack, "up", "-d", "processor")
    await completed(f"http://127.0.0.1:{stack.port}", list(traffic.accepted.values()))
    await verified(stack)


async def test_a_service_that_dies_by_itself_is_started_again(stack: Stack) -> None:
    [before] = await inspect(stack, "notifier")
    # From inside: what Docker kills counts as stopped, and a container's processes are not ours.
    die = """
import os
from pathlib import Path
for process in Path("/proc").glob("[0-9]*"):
    told = (process / "cmdline").read_text()
    if "services.notifier" in told and int(process.name) not in (1, os.getpid()):
        os.kill(int(process.name), 9)
"""
    with contextlib.suppress(Misconfigured):  # it dies with its container
        await inside(stack, "notifier", "python", "-c", die)

    async def is_back() -> bool:
        [now] = await inspect(stack, "notifier")
        state = now["State"]
        return state["Pid"] not in (0, before["State"]["Pid"]) and (
            state["Health"]["Status"] == "healthy"
        )

    await eventually(is_back, PATIENCE, 0.5)


async def test_prometheus_finds_every_replica(stack: Stack) -> None:
    await run(stack, "--profile", "observability", "up", "-d", "prometheus")
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{os.environ['PROMETHEUS_PORT']}"
    ) as session:

        async def all_are_up() -> bool:
            try:
                async with session.get("/api/v1/targets") as response:
                    targets = (await response.json())["data"]["activeTargets"]
            except aiohttp.ClientError:
                return False
            up = {t["labels"]["job"] for t in targets if t["health"] == "up"}
            return up == {"api", "processor", "notifier", "rabbitmq", "queues"}

        await eventually(all_are_up, PATIENCE, 1)


async def test_one_container_runs_the_three_services_against_given_servers(stack: Stack) -> None:
    """As deploy/fly.toml has it: `florin up` in the image, reached by others, so with keys."""
    command = tomllib.loads((ROOT / "deploy/fly.toml").read_text())["processes"]["app"].split()
    names = {"FLORIN_DATABASE_URL": "", "FLORIN_AMQP_URL": "", "FLORIN_SEALING_KEYS": ""}
    for name in names:
        names[name] = await inside(stack, "api", "cat", f"/run/secrets/{name.lower()}")
    key = (await inside(stack, "api", "cat", "/run/secrets/florin_bootstrap_key")).strip()
    [container] = await inspect(stack, "processor")
    [network] = container["NetworkSettings"]["Networks"]
    given = [part for name, value in names.items() for part in ("-e", f"{name}={value}")]
    options = ["--detach", "--network", network, "--publish", "127.0.0.1:0:8080", "--read-only"]
    options += ["--tmpfs", "/tmp", "-e", f"FLORIN_BOOTSTRAP_KEY={key}", *given]

    def docker(*arguments: str) -> str:
        return subprocess.check_output(["docker", *arguments], text=True).strip()

    id_ = await asyncio.to_thread(docker, "run", *options, "florin:test", *command)
    try:
        url = f"http://{await asyncio.to_thread(docker, 'port', id_, '8080')}"

        async def pay(headers: dict[str, str]) -> int:
            try:
                async with aiohttp.ClientSession(url, headers=headers) as session:
                    body = payment_body(uuid.uuid4().hex)
                    async with session.post("/api/v1/payments", json=body) as response:
                        return response.status
            except aiohttp.ClientError:
                return 0

        await eventually(lambda: pay({"Authorization": f"Bearer {key}"}), PATIENCE)
        assert await pay({"Authorization": f"Bearer {key}"}) == 202
        assert await pay({}) == 401
        assert key not in await asyncio.to_thread(docker, "logs", id_)
        await asyncio.to_thread(docker, "stop", "--time", "60", id_)
        assert await asyncio.to_thread(docker, "inspect", "-f", "{{.State.ExitCode}}", id_) == "0"
    finally:
        await asyncio.to_thread(docker, "rm", "-f", id_)


async def test_a_backup_brings_everything_back(stack: Stack, tmp_path: Path) -> None:
    """By the commands of docs/deploy.md, into the stack's own database, emptied."""
    before = Load(f"http://127.0.0.1:{stack.port}")
    async with before.running():
        await before.more(50)
    ids = list(before.accepted.values())
    await completed(f"http://127.0.0.1:{stack.port}", ids)
    postgres = ("exec", "-T", "postgres")
    await run(
        stack, *postgres, "pg_dump", "-U", "florin", "-Fc", "-f", "/tmp/florin.dump", "florin"
    )
    await run(stack, "stop", *SERVICES)
    await run(stack, *postgres, "dropdb", "-U", "florin", "florin")
    await run(stack, *postgres, "createdb", "-U", "florin", "florin")
    restore = ("pg_restore", "-U", "florin", "-d", "florin", "--exit-on-error")
    await run(stack, *postgres, *restore, "/tmp/florin.dump")
    await run(stack, "up", "-d")
    await healthy(stack)
    await completed(f"http://127.0.0.1:{stack.port}", ids)
    await verified(stack)


async def test_replicas_share_the_work(stack: Stack) -> None:
    ports = f"{stack.port}-{stack.port + REPLICAS - 1}"
    await run(stack, "up", "-d", "--scale", "processor=3", "--scale", "api=2", FLORIN_PORTS=ports)
    await healthy(stack)
    urls = await addresses(stack)
    assert len(urls) == 2
    assert len(await inspect(stack, "processor")) == 3
    loads = [Load(url) for url in urls]
    async with loads[0].running(), loads[1].running():
        await loads[0].more(150)
        await loads[1].more(150)
    for traffic, other in zip(loads, reversed(urls), strict=True):
        await completed(other, list(traffic.accepted.values()))
    for container in await inspect(stack, "processor"):
        assert await settled(container["Id"]) > 0, "each has settled some"
    await verified(stack)


async def test_going_down_drains_and_coming_up_goes_on(stack: Stack) -> None:
    traffic = Load(f"http://127.0.0.1:{stack.port}")
    async with traffic.running():
        await traffic.more(200)
        stopping = asyncio.create_task(run(stack, "stop", *SERVICES))
        # What was begun has its answer, and who has none asks again until the API is back.
        await stopping
        for service in SERVICES:
            for container in await inspect(stack, service):
                assert container["State"]["ExitCode"] == 0, service
                assert not container["State"]["OOMKilled"]
        logs = await run(stack, "logs", "--no-color", "api", "processor", "notifier")
        assert logs.count('"draining"') >= 3
        await run(stack, "down", "-t", "10")
        await run(stack, "up", "-d")
        await healthy(stack)
    url = f"http://127.0.0.1:{stack.port}"
    await completed(url, list(traffic.accepted.values()))
    await verified(stack)


async def test_one_command_brings_it_up_and_drains_it(stack: Stack) -> None:
    status, said = await run_command("up", "--docker", "--port", str(stack.port))
    assert (status, "the stack runs already" in said) == (1, True), "and it goes on running"
    await healthy(stack)
    await run(stack, "--profile", "observability", "down", "-t", "10")
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "up", "--docker", "--quiet", "--port", str(stack.port)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert up.stdout is not None
    async with asyncio.timeout(PATIENCE):
        said = (await up.stdout.readline()).decode().strip()
    assert said == f"http://127.0.0.1:{stack.port}"
    traffic = Load(said)
    async with traffic.running():
        await traffic.more(20)
    up.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await up.wait() == 0
    assert await asyncio.to_thread(stack.states) == {}
