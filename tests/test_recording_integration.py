"""``perpwatch record`` as a process over real sockets, and its end by ``kill -9``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from typer.testing import CliRunner

from local_exchange import local_exchange, until
from perpwatch.app.cli import app
from perpwatch.feed.recording import RecordingFile, Taken, recording_files


async def test_perpwatch_record_is_killed_and_what_it_recorded_is_replayed(tmp_path: Path) -> None:
    folder, program = tmp_path / "recording", "from perpwatch.app.cli import main; main()"
    async with asyncio.timeout(60), local_exchange() as local:
        addresses = {
            "PERPWATCH_WEBSOCKET__BASE_URL": local.config.websocket.base_url,
            "PERPWATCH_REST__BASE_URL": local.config.rest.base_url,
            "PERPWATCH_REST__HISTORY_MINUTES": "60",
        }
        recording = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, "record", "--folder", str(folder)),
            env=os.environ | addresses,
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )
        await until(lambda: sum(path.stat().st_size for path in folder.glob("*.pwrec")) > 30_000, 40.0)
        recording.kill()
        await recording.communicate()
    result = CliRunner().invoke(app, ["replay", str(folder), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    records = [one for path in recording_files(folder) for one in RecordingFile(path).records()]
    sources = {one.source for one in records if isinstance(one, Taken)}
    assert {"rest", "ws-1"} <= sources
    assert not (tmp_path / "perpwatch.db").exists()
