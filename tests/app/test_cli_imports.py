"""What a command does not need is not imported: most of the time of a short one would be importing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perpwatch.app.cli import COMMANDS
from perpwatch.app.cli_commands import Command

PROGRAM = """
import sys
from perpwatch.app.cli import main
sys.argv[0] = "perpwatch"
try:
    main()
finally:
    print("imported:", *sys.modules, file=sys.stderr)
"""
WATCH = {"picows", "aiohttp", "prometheus_client", "perpwatch.app.bot", "perpwatch.app.engine"}
SIMULATOR = {"perpwatch.sim"}
STORE = {"sqlalchemy", "alembic", "perpwatch.store"}
FILES = {"polars", "zstandard", "matplotlib"}
PAGES = {"fastapi", "nicegui", "uvicorn", "starlette"}


@pytest.mark.parametrize(
    ("arguments", "not_needed"),
    [
        (("--help",), {*WATCH, *SIMULATOR, *STORE, *FILES, *PAGES, "numpy", "pydantic", "asyncio"}),
        (("config", "show"), {*WATCH, *SIMULATOR, *STORE, *FILES, *PAGES}),
        (("ledger",), {*WATCH, *SIMULATOR, *FILES, *PAGES, "alembic"}),
        (("db", "info"), {*WATCH, *SIMULATOR, *FILES, *PAGES, "alembic"}),
        (("plan", "--count", "100"), {*SIMULATOR, *STORE, *FILES, *PAGES, "perpwatch.app.bot"}),
        (("run", "--help"), {*SIMULATOR, "polars", "matplotlib", *PAGES}),
    ],
)
def test_a_command_imports_nothing_that_it_does_not_need(
    arguments: tuple[str, ...], not_needed: set[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    imported = set(done.stderr.rpartition("imported: ")[2].split())
    assert "perpwatch.app.cli" in imported, done.stderr
    assert not imported & not_needed


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_list_of_commands_says_what_the_command_says_itself(command: Command) -> None:
    loaded = command.load()
    assert loaded.name == command.name
    first = " ".join(loaded.help.partition("\n\n")[0].split())
    assert first == command.help or first.startswith(f"{command.help} ")
