"""What a command does not need is not imported: most of the time of a short one would be importing."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
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
#: None of the settings that whoever runs the tests may have.
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
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
        env=ENVIRONMENT,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    imported = set(done.stderr.rpartition("imported: ")[2].split())
    assert "perpwatch.app.cli" in imported, done.stderr
    assert not imported & not_needed


@pytest.mark.parametrize(
    ("paths", "is_loaded"), [(("/api/v1/status", "/login", "/static/perpwatch.css"), False), (("/signals",), True)]
)
def test_a_watch_loads_its_pages_for_the_first_who_looks(
    paths: tuple[str, ...], is_loaded: bool, tmp_path: Path
) -> None:
    nowhere = "127.0.0.1:9"
    variables = ENVIRONMENT | {
        "PERPWATCH_DASHBOARD__PORT": "0",
        "PERPWATCH_HEALTH__PORT": "0",
        "PERPWATCH_REST__BASE_URL": f"http://{nowhere}",
        "PERPWATCH_WEBSOCKET__BASE_URL": f"ws://{nowhere}",
    }
    command = [sys.executable, "-c", PROGRAM, "run", "--format", "log"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables, cwd=tmp_path) as process:
        assert process.stderr is not None
        try:
            url = next(line.split()[-1] for line in process.stderr if line.startswith("dashboard at"))
            for path in paths:
                with urllib.request.urlopen(url + path, timeout=60) as answer:
                    assert answer.status == 200
        finally:
            process.terminate()
        imported = set(process.stderr.read().rpartition("imported: ")[2].split())
    assert process.returncode == 0
    assert imported >= {"uvicorn", "sqlalchemy"}
    assert ("nicegui" in imported) is is_loaded
    assert "alembic" not in imported  # its store is new


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_list_of_commands_says_what_the_command_says_itself(command: Command) -> None:
    loaded = command.load()
    assert loaded.name == command.name
    first = " ".join(loaded.help.partition("\n\n")[0].split())
    assert first == command.help or first.startswith(f"{command.help} ")
