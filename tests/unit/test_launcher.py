"""`./florin` makes its environment with the right Python, or says what is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The launcher alone, and an interpreter that says which it is when it is to be used."""
    shutil.copy(ROOT / "florin", tmp_path / "florin")
    (tmp_path / "requirements.txt").touch()
    python(tmp_path / "bin" / "python3", "the one on PATH")
    return tmp_path


def python(path: Path, name: str, *, old: bool = False) -> None:
    """A program that passes for Python, but for making environments."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *version_info*) exit {int(old)};; *ensurepip*) exit 0;;'
        f" *venv*) echo made with {name} >&2; exit 1;; esac\n"
    )
    path.chmod(0o755)


def run(tree: Path, **environment: str) -> str:
    path = f"{tree / 'bin'}:{os.environ['PATH']}"
    ran = subprocess.run(
        [tree / "florin", "status"],
        env={"PATH": path, "HOME": str(tree), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    return ran.stderr


def test_the_python_that_is_named_is_used(tree: Path) -> None:
    python(tree / "mine", "mine")
    assert "made with mine" in run(tree, FLORIN_PYTHON=str(tree / "mine"))


def test_one_that_is_named_and_is_too_old_is_not_replaced_in_silence(tree: Path) -> None:
    python(tree / "mine", "mine", old=True)
    said = run(tree, FLORIN_PYTHON=str(tree / "mine"))
    assert "FLORIN_PYTHON is no Python 3.11 or newer" in said


def test_the_distributions_own_comes_before_the_one_on_path(tree: Path) -> None:
    launcher = tree / "florin"
    python(tree / "own", "its own")
    text = launcher.read_text()
    assert text.count("/usr/bin/python3") == 1
    launcher.write_text(text.replace("/usr/bin/python3", str(tree / "own")))
    assert "made with its own" in run(tree)
    python(tree / "own", "its own", old=True)
    assert "made with the one on PATH" in run(tree)
