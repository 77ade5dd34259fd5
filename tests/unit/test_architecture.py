"""Rules of the layout that import-linter cannot see."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("services", "shared", "cli", "bench")
    for path in (ROOT / folder).rglob("*.py")
)
SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM)\s+[\w*(]", re.MULTILINE)


def code(path: Path) -> str:
    """A module without its docstrings and comments."""
    text = re.sub(
        r'^\s*(?:async )?"""(?:[^"]|"(?!""))*?"""$', "", path.read_text(), flags=re.MULTILINE
    )
    return re.sub(r"#.*", "", text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sql_stands_in_stores_alone(path: Path) -> None:
    if path.name != "store.py" and path.parent.name != "store":
        assert not SQL.search(code(path))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_declared_but_by_the_topology(path: Path) -> None:
    if path.name != "topology.py":
        for call in re.findall(r"declare_\w+\((?:[^()]|\([^()]*\))*\)", code(path)):
            assert "passive=True" in call


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith('"""')
