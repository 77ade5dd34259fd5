"""Error codes are a contract: what is answered is listed, and what is listed is answered."""

import re
from pathlib import Path

from services.api.codes import Code

ROOT = Path(__file__).parents[2]


def test_the_docs_list_every_code_with_its_meaning() -> None:
    text = (ROOT / "docs/errors.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
    assert listed == [(code.value, code.meaning) for code in Code]


def test_every_code_is_used() -> None:
    source = "".join(
        path.read_text()
        for path in (ROOT / "services/api").rglob("*.py")
        if path.name != "codes.py"
    )
    unused = [code for code in Code if f"Code.{code.name}" not in source]
    assert unused == []
