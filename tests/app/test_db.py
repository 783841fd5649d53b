"""``perpwatch db`` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perpwatch.app.store_config import StoreConfig
from perpwatch.model import Candle, Finality, Timeframe, Trust
from perpwatch.store import Database, LedgerHour, Writer
from perpwatch.store.schema import HEAD

T0 = 1_791_201_600_000
CANDLE = Candle("BTC_USDT", Timeframe.Min1, T0, 1.0, 2.0, 0.5, 1.5, 10.0, 1.0, 15.0, Finality.SUCCESSOR, Trust.STREAMED)

RUN = "import sys; from perpwatch.app.db import db_app; sys.argv[0] = 'perpwatch db'; db_app()"


def perpwatch_db(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder with a store in it, of one candle."""
    database = Database.open(StoreConfig().address(tmp_path / "perpwatch.toml"))
    async with Writer(database) as writer:
        writer.put_now(CANDLE, LedgerHour("BTC_USDT", T0, b"\1".ljust(60, b"\0")))
    database.close()
    return tmp_path


def test_info_tells_where_and_what(folder: Path) -> None:
    told = perpwatch_db(folder, "info")
    assert told.returncode == 0, told.stderr
    assert f"{folder}/perpwatch.db: schema {HEAD}" in told.stdout
    assert "2026-10-05" in told.stdout
    found = json.loads(perpwatch_db(folder, "info", "--format", "json").stdout)
    assert found["rows"]["candles"] == 1
    assert found["candles"] == [{"timeframe": "Min1", "rows": 1, "first_ms": T0, "last_ms": T0}]


def test_check_says_whether_it_is_sound(folder: Path) -> None:
    sound = perpwatch_db(folder, "check")
    assert (sound.returncode, sound.stderr) == (0, "")
    assert sound.stdout.splitlines() == ["1 of 1 minutes are known (100.000%)", "the store is sound"]
    database = Database.open(f"{folder}/perpwatch.db")
    with database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM ledger")
    database.close()
    unsound = perpwatch_db(folder, "check")
    assert unsound.returncode == 1
    assert "1 candles are not known to the ledger: BTC_USDT 1" in unsound.stdout
    assert json.loads(perpwatch_db(folder, "check", "--format", "json").stdout)["unledgered"] == {"BTC_USDT": 1}


def test_migrate_makes_a_store(tmp_path: Path) -> None:
    made = perpwatch_db(tmp_path, "migrate", "--url", "sqlite:///other.db")
    assert (made.returncode, made.stderr) == (0, "")
    assert f"other.db has schema {HEAD}" in made.stdout
    assert (tmp_path / "other.db").exists()


def test_a_store_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    told = perpwatch_db(tmp_path, "info")
    assert told.returncode == 1
    assert told.stderr == f"store: {tmp_path}/perpwatch.db: there is no such file yet\n"
