"""`./florin bench`: figures that anybody can make again, of a private or of a running system."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.system import System, Urls, eventually, run_command


@pytest.fixture
async def key(urls: Urls) -> str:
    """A key of the default account of the system that runs."""
    status, said = await run_command(
        "keys", "create", "--account", "acct_default", FLORIN_DATABASE_URL=urls.database
    )
    assert status == 0, said
    return next(word for word in said.split() if word.startswith("sk_"))


def figures(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())["scenarios"]
    return found


async def test_a_system_that_runs_is_measured_verified_and_left_without_endpoints(
    system: System, urls: Urls, key: str, tmp_path: Path
) -> None:
    figures_file, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    measure = ("bench", "refunds", "--url", system.url, "--seconds", "1")
    environment = {"FLORIN_API_KEY": key, "FLORIN_DATABASE_URL": urls.database}
    status, said = await run_command(
        *measure, "--json", str(figures_file), "--plot", str(plot), **environment
    )
    assert status == 0, said
    assert "every rule of `florin verify` holds" in said
    found = figures(figures_file)["refunds"]
    assert found["payments"] > 0
    assert found["delivered"]["p50"] >= found["accept"]["p50"] > 0
    assert found["refusals"] == {}
    assert found["load_share"] > 0
    assert "</svg>" in plot.read_text()
    async with (
        aiohttp.ClientSession(system.url) as http,
        http.get("/v1/webhook_endpoints") as response,
    ):
        assert (await response.json())["data"] == []
    assert key not in figures_file.read_text() + said


async def test_latency_is_measured_and_drawn_by_rate(
    system: System, urls: Urls, key: str, tmp_path: Path
) -> None:
    figures_file, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    status, said = await run_command(
        "bench", "curve", "--url", system.url, "--seconds", "1", "--rate", "80",
        "--json", str(figures_file), "--plot", str(plot),
        FLORIN_API_KEY=key, FLORIN_DATABASE_URL=urls.database,
    )  # fmt: skip
    assert status == 0, said
    offered = {name: one["offered"] for name, one in figures(figures_file).items()}
    assert offered == {
        "curve": None,
        "curve at 10%": 8,
        "curve at 25%": 20,
        "curve at 50%": 40,
        "curve at 75%": 60,
    }
    assert all(one["delivered"]["p99"] > 0 for one in figures(figures_file).values())
    assert "<!-- to webhook, p99 -->" in plot.read_text()


async def test_a_private_system_is_made_measured_compared_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    status, said = await run_command("bench", "settle", "--seconds", "1", "--json", str(file))
    assert status == 0, said
    found = figures(file)["settle"]
    assert found["payments"] > 0
    assert found["cpu"]["processor"] > 0
    assert found["memory"]["postgres"] > 0
    assert found["batches"]["move payments"] >= 1


async def test_one_that_is_told_to_stop_stops_its_system() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "bench", "settle",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    family = psutil.Process(process.pid)

    def is_api(process: psutil.Process) -> bool:
        try:
            return "services.api" in process.cmdline()
        except psutil.Error:  # it has just ended
            return False

    async def runs() -> bool:
        return any(map(is_api, family.children(recursive=True)))

    try:
        await eventually(runs, 60)
        started = family.children(recursive=True)
    finally:
        process.terminate()
        await process.wait()
    assert [one.pid for one in started if one.is_running() and one.status() != "zombie"] == []


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["hot", "--url", "http://127.0.0.1:9"], {}, "FLORIN_API_KEY"),
        (["hot", "--plot", "plot.pdf"], {}, ".svg or .png"),
        (["hot", "--compare", "/nonexistent.json"], {}, "--json"),
        (
            ["growth", "--url", "http://127.0.0.1:9"],
            {"FLORIN_API_KEY": "sk_x"},
            "leave --url out",
        ),
        (["hot", "--url", "http://127.0.0.1:9"], {"FLORIN_API_KEY": "sk_x"}, "127.0.0.1:9"),
    ],
)
async def test_what_cannot_be_measured_says_why(
    arguments: list[str], environment: dict[str, str], words: str
) -> None:
    status, said = await run_command("bench", *arguments, **environment)
    assert status == 1
    assert words in said
    assert "Traceback" not in said
