"""The README's tour works as pasted."""

from pathlib import Path

from deploy.local.ports import free_port
from tests.chaos.test_backends_away import running_up
from tests.tour import take_the_tour


async def test_every_line_of_the_tour_works_as_pasted(tmp_path: Path) -> None:
    port, hook = free_port(), free_port()
    limits = {"FLORIN_RATE_LIMIT": "10", "FLORIN_RATE_BURST": "10"}
    async with running_up(tmp_path / "data", port, **limits):
        await take_the_tour(port, hook, tmp_path, in_containers=False)
