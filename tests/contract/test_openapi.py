"""The description of the API is the API: every route, every example, every status."""

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import jsonschema
import pytest
from aiohttp import web
from pydantic import SecretStr

from services.api import strict_json
from services.api.app import make_web
from services.api.config import ApiSettings
from services.api.congestion import Congestion
from services.api.context import Context
from services.api.documentation import DIRECTORY, PATHS
from services.api.gate import MOUNTS
from services.api.openapi import describe
from services.api.routes import OPERATIONS, PROBES
from shared.db import Database
from tests.invariants import assert_invariants
from tests.system import SEALING_KEY, System, eventually

SPEC = describe((*OPERATIONS, *PROBES))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
SCHEMATHESIS = "import gc; gc.disable(); from schemathesis.cli import schemathesis; schemathesis()"
"""Its command, without the collector: before 3.11.8, two threads of CPython in `ast.parse` at once
make a SystemError when the collector lets one overtake the other (python/cpython#106905)."""


@pytest.fixture(scope="module")
async def http(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(system.url) as session:
        yield session


def test_every_route_is_in_the_description_and_the_other_way_round() -> None:
    site = make_web(
        ApiSettings(auth="local", sealing_keys=(SecretStr(SEALING_KEY),)),
        cast(Context, SimpleNamespace(database=None)),
        Congestion(60),
    )
    served = {
        (route.method, cast(web.Resource, route.resource).canonical)
        for route in site.app.router.routes()
        if route.method != "HEAD"
    }
    described = {
        (method.upper(), mount + path)
        for path, methods in SPEC["paths"].items()
        for method in methods
        for mount in MOUNTS
    }
    at_the_root = {("GET", path) for path in PATHS}
    at_the_root |= {(operation.method, operation.path) for operation in PROBES}
    assert served == described | at_the_root


def examples() -> list[tuple[str, Any]]:
    schemas = SPEC["components"]["schemas"]
    return [(name, one) for name, schema in schemas.items() for one in schema.get("examples", [])]


@pytest.mark.parametrize(("name", "example"), examples())
def test_every_example_is_valid_for_the_schema_and_for_the_model(name: str, example: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": SPEC["components"]}
    jsonschema.Draft202012Validator(schema).validate(example)
    [model] = {o.body for o in OPERATIONS if o.body is not None and o.body.__name__ == name}
    model.model_validate(strict_json.parse(json.dumps(example).encode()))


def test_there_is_an_example_of_every_body() -> None:
    bodies = {operation.body.__name__ for operation in OPERATIONS if operation.body is not None}
    assert {name for name, _ in examples()} == bodies


def test_every_operation_says_what_it_does_and_has_a_name_of_its_own() -> None:
    operations = [op for methods in SPEC["paths"].values() for op in methods.values()]
    assert len({op["operationId"] for op in operations}) == len(operations)
    assert all(op["summary"] for op in operations)


async def test_the_page_is_whole_and_asks_nobody_else(http: aiohttp.ClientSession) -> None:
    async with http.get("/docs") as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "//" not in policy, "no host is allowed but ours"
    asked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert set(asked) == set(PATHS) - {"/openapi.json", "/docs"}
    for path in asked:
        async with http.get(path) as response:
            assert (response.status, len(await response.read()) > 0) == (200, True)
    async with http.get("/openapi.json") as response:
        assert await response.json() == SPEC


def test_vendored_files_are_what_they_are_said_to_be() -> None:
    folder = DIRECTORY / "swagger-ui"
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: sum_ for sum_, name in lines}
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "SHA256SUMS"
    }
    assert found == sums
    assert "LICENSE" in found


async def test_generated_requests_find_no_fault_and_no_undocumented_answer(
    system: System, database: Database, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCHEMATHESIS,
        "run",
        f"{system.url}/openapi.json",
        f"--url={system.url}/api/v1",
        f"--checks={','.join(CHECKS)}",
        "--max-examples=25",
        "--generation-deterministic",
        "--max-failures=5",
        "--workers=2",
        "--exclude-path=/events/stream",  # its answer has no end
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()
    assert f"Tested: {len(OPERATIONS) + len(PROBES) - 1}" in output.decode()

    async def settled() -> bool:
        return not await database.fetchval(
            "SELECT 1 FROM payments WHERE processed_at IS NULL AND unknown_since IS NULL LIMIT 1"
        )

    await eventually(settled)


async def test_after_all_that_every_invariant_holds(database: Database) -> None:
    async def all_told() -> bool:
        return not await database.fetchval("SELECT 1 FROM outbox LIMIT 1")

    await eventually(all_told)
    await assert_invariants(database)
