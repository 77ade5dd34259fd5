"""The invariants of the design, as `./florin verify` proves them."""

from cli.verify import examine
from shared.db import Database


async def assert_invariants(database: Database) -> None:
    """Fail, naming the rule and the first rows that break it."""
    findings = await examine(database, grace=0)
    assert [finding for finding in findings if finding.violations] == []


async def assert_deliveries(database: Database) -> None:
    """The rules about deliveries alone, where events were made without payments."""
    findings = await examine(database, grace=0)
    about_deliveries = [f for f in findings if "deliver" in f.rule or "attempts" in f.rule]
    assert len(about_deliveries) == 3
    assert [finding for finding in about_deliveries if finding.violations] == []


async def open_payments(database: Database) -> int:
    """How many payments have no outcome yet."""
    count: int = await database.fetchval(
        "SELECT count(*) FROM payments WHERE status IN ('pending', 'processing')"
    )
    return count
