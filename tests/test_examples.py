"""Every example runs against the built-in exchange, and fits on a screen."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
MOST_LINES = 40


def code_lines(path: Path) -> int:
    """Lines that do something: no blanks, no comments, no docstrings."""
    source = path.read_text(encoding="utf-8")
    told = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(source.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and number not in told for number, line in lines)


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("PERPWATCH_")}
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=40,
        cwd="/",
        env=clean,
        check=False,
    )


def test_there_are_examples() -> None:
    assert {"analysis_bot.py", "demo_ws_client.py"} <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_on_a_screen_says_how_to_run_it_and_runs(path: Path) -> None:
    assert code_lines(path) < MOST_LINES
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring is not None
    assert f"python examples/{path.name}" in docstring
    done = run(path, "--duration", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_the_client_of_the_brief_runs_in_full_mode_and_with_so_many_pairs_and_connections() -> None:
    path = Path(__file__).parent.parent / "examples" / "demo_ws_client.py"
    done = run(path, "--mode", "full", "--duration", "4", "--pairs", "30", "--connections", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "'total_pairs': 30" in done.stdout
    assert "'all_healthy': True" in done.stdout
    assert "'deals'" in done.stdout
    assert "'kline_Min5'" in done.stdout
