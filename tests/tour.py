"""The README's tour, as somebody would paste it."""

import asyncio
import re
from pathlib import Path
from typing import Final

README: Final = Path(__file__).parents[1] / "README.md"
EXPECTED: Final = (
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


async def take_the_tour(port: int, hook: int, directory: Path, *, in_containers: bool) -> None:
    """Paste every line, for an API at `port` of this machine and a merchant's server at `hook`."""
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    script = "set -eu\n" + "\n".join(blocks)
    if in_containers:
        [(before, after)] = re.findall(r"(listen=\S+ hook=\S+) .*: (listen=\S+ hook=\S+)", script)
        script = script.replace(before, after)
    script = script.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    script = script.replace("9000", str(hook)).replace("/tmp/florin-", f"{directory}/")
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
