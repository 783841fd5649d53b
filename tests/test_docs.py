"""What the guide says about keys and files is true."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from local_exchange import local_exchange
from perpwatch.app.alerts_config import CHANNELS, channel_keys
from perpwatch.app.cli import COMMANDS
from perpwatch.app.cli_commands import lazy_group
from perpwatch.app.config import Config, flat

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "perpwatch"
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
#: | `key` | `default` | unit | `VARIABLE` | why |
ROW = re.compile(r"^\| `([a-zA-Z0-9_.]+)` \| `(.*?)` \| ([^|]+) \| `(PERPWATCH_\w+)` \| ([^|]+) \|$", re.MULTILINE)


def test_every_setting_is_documented_with_its_default_and_its_variable() -> None:
    rows = {row[0]: row for row in ROW.findall((ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"))}
    settings = flat(Config.model_construct().model_dump(mode="json"))
    missing = [
        f"| `{key}` | `{json.dumps(value)}` | UNIT | `PERPWATCH_{key.upper().replace('.', '__')}` | WHY |"
        for key, value in settings.items()
        if key not in rows
    ]
    assert not missing, "add to docs/configuration.md:\n" + "\n".join(missing)
    assert [key for key in rows if key not in settings] == []
    for key, (_, default, unit, variable, why) in rows.items():
        assert (key, json.loads(default)) == (key, settings[key])
        assert variable == f"PERPWATCH_{key.upper().replace('.', '__')}"
        assert unit.strip()
        assert why.strip()


def test_every_key_of_a_channel_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = text.partition("### `[alerts.channels.NAME]`")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \| .+ \|$", section, re.MULTILINE))
    for channel in CHANNELS.values():
        for key, field in channel.model_fields.items():
            default = "none" if field.is_required() else f"`{json.dumps(field.default, default=str)}`"
            assert rows.get(key) == default, f"the row of {key} of {channel.__name__} should say {default}"
    assert rows.keys() == channel_keys("").keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_and_to_files_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_index_names_every_page_of_the_guide() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert page.name == "index.md" or f"]({page.name})" in index, f"docs/index.md does not name {page.name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    for name in re.findall(
        r"`((?:src|tests|examples|docs|benchmarks)/[\w./-]+)`", document.read_text(encoding="utf-8")
    ):
        assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_modules_that_are_named_exist() -> None:
    packages = "|".join(sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"))
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{packages})/[\w./]*)`", text)
    assert "feed/session.py" in named
    assert [name for name in named if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_that_are_shown_exist_with_their_options(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    shown = re.findall(r"`(?:\.venv/bin/)?perpwatch ([a-z][^`]*)`", text)
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        lines = block.replace("\\\n", " ")
        shown += re.findall(r"^(?:\.venv/bin/)?perpwatch ([a-z][^|&\n#>]*)", lines, re.MULTILINE)
    for words in map(str.split, shown):
        command: Any = None
        group: Any = lazy_group(COMMANDS)()
        depth = 0
        while isinstance(group, TyperGroup) and depth < len(words) and words[depth] in group.commands:
            _, command, _ = group.resolve_command(typer.Context(group), words[depth:])
            group, depth = command, depth + 1
        assert command is not None, f"{document.name} shows {words}"
        assert not isinstance(command, TyperGroup) or depth == len(words), f"{document.name} shows {words}"
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        unknown = {word for word in words if word.startswith("--")} - known
        assert not unknown, f"{document.name} shows {words}, which has {sorted(known)}"


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [one.name for one in COMMANDS if f"`{one.name}`" not in text and f"\nmake {one.name} " not in text]
    assert missing == []


async def test_the_programs_that_are_shown_run() -> None:
    async with asyncio.timeout(40), local_exchange() as local:
        addresses = {
            "PERPWATCH_WEBSOCKET__BASE_URL": local.config.websocket.base_url,
            "PERPWATCH_REST__BASE_URL": local.config.rest.base_url,
            # Both run at once from one address, and the exchange allows ten requests a second to both together.
            "PERPWATCH_REST__REQUESTS_PER_SECOND": "3",
        }

        async def run(document: str) -> None:
            (program,) = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", program),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | addresses,
                cwd="/",
            )
            printed, errors = await process.communicate()
            assert (document, process.returncode, errors) == (document, 0, b"")
            assert b"BTC_USDT" in printed
            assert b"'active_connections': 1" in printed

        await asyncio.gather(run("README.md"), run("docs/quickstart.md"))
