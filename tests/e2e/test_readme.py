"""The README's tour works as pasted."""

import asyncio
import re
from pathlib import Path

from deploy.local.ports import free_port
from tests.chaos.test_backends_away import running_up

README = Path(__file__).parents[2] / "README.md"
EXPECTED = (
    "whsec_",
    '"status":"pending"',
    '"status":"completed"',
    "Idempotent-Replayed: true",
    "at most 2 decimals, as USD has",
    '"object":"list"',
    '"object":"charge"',
    '"object":"refund"',
    "are left to refund",
    '"object":"balance"',
    '"type":"refund"',
    '"step": "taken_from_queue"',
    'florin_refunds_total{outcome="completed"} 1',
    '"event_type":"webhook_endpoint.test"',
    '"status":"counted"',
    '"status":"finished"',
    '"completed_payments"',
    '"uptime_seconds"',
    '"ready":true',
    "heard evt_",
)


async def test_every_line_of_the_tour_works_as_pasted(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    port, hook = free_port(), free_port()
    script = "set -eu\n" + "\n".join(blocks)
    script = script.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    script = script.replace("9000", str(hook)).replace("/tmp/florin-", f"{tmp_path}/")
    limits = {"FLORIN_RATE_LIMIT": "10", "FLORIN_RATE_BURST": "10"}
    async with running_up(tmp_path / "data", port, **limits):
        pasted = await asyncio.create_subprocess_exec(
            "bash",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            told, _ = await pasted.communicate(script.encode())
    output = told.decode()
    assert pasted.returncode == 0, output
    for expected in EXPECTED:
        assert expected in output, output
    [(passed, refused)] = re.findall(r"(\d+) 202\n +(\d+) 429", output)
    assert 10 <= int(passed) <= 12, "a token returns each tenth of a second"
    assert int(passed) + int(refused) == 15
