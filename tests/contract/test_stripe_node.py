"""Stripe's official Node SDK uses Florin as it uses Stripe: `node/contract.test.mjs` says how."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.db import Database
from tests.conftest import KEY
from tests.invariants import assert_invariants
from tests.system import System, Urls, eventually

SOURCE = Path(__file__).parent / "node"
BIN = Path(sys.executable).parent  # node and npm come with the test requirements


async def run(*command: str, cwd: Path, **environment: str) -> str:
    """A command that must succeed; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **environment, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.fixture(scope="module")
async def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests with the SDK that they are pinned to."""
    folder = tmp_path_factory.mktemp("node")
    for file in SOURCE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    await run(
        *("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
        cwd=folder,
        NODE_USE_SYSTEM_CA="1",  # as pip does: a network may have an authority of its own
    )
    return folder


@pytest.fixture(scope="module")
async def florin(urls: Urls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A Florin that requires keys."""
    system = System(urls, tmp_path_factory.mktemp("required"), FLORIN_AUTH="required")
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture(scope="module")
async def open_api(urls: Urls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """An API without keys and with a small rate limit, on the same database."""
    other = System(
        urls,
        tmp_path_factory.mktemp("open"),
        FLORIN_RATE_LIMIT="0.01",
        FLORIN_RATE_BURST="5",
    )
    await other.services["api"].start(30)
    yield other.url
    await other.services["api"].stop()


async def test_stripe_node_finds_all_that_it_needs(
    package: Path, florin: System, open_api: str
) -> None:
    output = await run(
        "node",
        "--test",
        "--test-reporter=tap",
        "contract.test.mjs",
        cwd=package,
        FLORIN_URL=florin.url,
        FLORIN_KEY=KEY,
        FLORIN_OPEN_URL=open_api,
    )
    written = len(re.findall(r"^test\(", (SOURCE / "contract.test.mjs").read_text(), re.MULTILINE))
    assert f"# pass {written}\n" in output, output


async def test_after_all_that_every_invariant_holds(database: Database) -> None:
    async def all_told() -> bool:
        return not await database.fetchval(
            """
            SELECT 1 FROM payments WHERE processed_at IS NULL
             UNION ALL
            SELECT 1 FROM outbox
             UNION ALL
            SELECT 1 FROM deliveries WHERE lease_until IS NOT NULL
             LIMIT 1
            """
        )

    await eventually(all_told)
    await assert_invariants(database)
