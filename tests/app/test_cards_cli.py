"""Cards of a past market, made by the command."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image
from typer.testing import CliRunner

from perpwatch.alert.drawing import HEIGHT, WIDTH
from perpwatch.app import card_samples
from perpwatch.app.cli import app
from perpwatch.app.lab_files import read_market
from perpwatch.model import MINUTE_MS
from perpwatch.store import Database, Writer

START_MS = 1_700_006_400_000
MINUTES = 3 * 1_440
#: Minutes in which something happens, by symbol: far enough from the end that what came of it is known.
JUMPS = {"AAA_USDT": 2_000, "BBB_USDT": 2_500, "CCC_USDT": 3_000}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of three markets, each of which jumps once by 8 % on a hundred times its volume."""
    folder = tmp_path_factory.mktemp("market")
    random = np.random.default_rng(5)
    for symbol, jump in JUMPS.items():
        returns = random.normal(0.0, 0.0005, MINUTES)
        returns[jump] = 0.08
        close = 10.0 * np.exp(np.cumsum(returns))
        open_ = np.concatenate([[10.0], close[:-1]])
        volume = random.gamma(4.0, 2_500.0, MINUTES)
        volume[jump] *= 100.0
        rows = ["t_ms,open,high,low,close,volume"]
        for number in range(MINUTES):
            prices = open_[number], max(open_[number], close[number]), min(open_[number], close[number]), close[number]
            figures = ",".join(f"{value:.8g}" for value in (*prices, volume[number]))
            rows.append(f"{START_MS + number * MINUTE_MS},{figures}")
        (folder / f"{symbol}.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_events_of_a_folder_become_pictures_texts_and_a_page(market: Path, tmp_path: Path) -> None:
    out = tmp_path / "cards"
    result = CliRunner().invoke(app, ["alerts", "cards", "--candles", str(market), "--out", str(out), "--count", "3"])
    assert result.exit_code == 0, result.output
    page = (out / "index.html").read_text(encoding="utf-8")
    for number, symbol in enumerate(JUMPS, 1):
        for language, moved in (("en", "in 1"), ("ru", "за 1")):
            text = (out / f"{number:02}-{language}-alert.txt").read_text(encoding="utf-8")
            title, *lines = text.splitlines()
            assert title.startswith(f"▲▲▲ {symbol.removesuffix('_USDT')} +8."), title
            assert moved in title
            assert lines[-1] == f"https://www.mexc.com/futures/{symbol}"
            assert "ms" not in lines[-2]
            assert f"{number:02}-{language}-alert.png" in page
        later = (out / f"{number:02}-en-later.txt").read_text(encoding="utf-8")
        assert "→" in later.splitlines()[0]
        assert "From the price of the alert: " in later
        for part in ("alert", "later"):
            picture = (out / f"{number:02}-en-{part}.png").read_bytes()
            assert Image.open(io.BytesIO(picture)).size == (WIDTH, HEIGHT)


def test_what_a_watch_has_kept_becomes_cards_too(market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (series,) = (one for one in read_market(market).series if one.symbol == "AAA_USDT")
    now_ms = int(time.time() * 1_000)
    shift_ms = now_ms - now_ms % MINUTE_MS - series.end_ms
    candles = [
        replace(candle, open_time_ms=candle.open_time_ms + shift_ms)
        for candle in series.closing(series.start_ms, series.end_ms)
    ]
    url = f"sqlite:///{tmp_path}/perpwatch.db"
    database = Database.open(url)

    async def keep() -> None:
        async with Writer(database, is_inline=True) as writer:
            writer.put_now(*candles)

    asyncio.run(keep())
    database.close()
    monkeypatch.setenv("PERPWATCH_STORE__URL", url)
    out = tmp_path / "cards"
    result = CliRunner().invoke(app, ["alerts", "cards", "--stored", "4d", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert (out / "01-en-alert.txt").read_text(encoding="utf-8").startswith("▲▲▲ AAA +8.")


def test_memory_is_bounded_and_the_most_unusual_stay(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_samples, "MOST_SAMPLES", 2)
    out = tmp_path / "cards"
    result = CliRunner().invoke(app, ["alerts", "cards", "--candles", str(market), "--out", str(out)])
    assert result.exit_code == 0, result.output
    titles = [(out / f"{number:02}-en-alert.txt").read_text(encoding="utf-8").splitlines()[0] for number in (1, 2)]
    assert all(title.startswith("▲▲▲ ") for title in titles)
    assert len(list(out.glob("*-en-alert.txt"))) == 2


def test_a_market_that_tells_nothing_says_so(market: Path, tmp_path: Path) -> None:
    rules = tmp_path / "never.toml"
    rules.write_text('[rules.never]\ndetector = "rarity"\nminimum_turnover = 1e15\n')
    out = tmp_path / "cards"
    arguments = ["alerts", "cards", "--candles", str(market), "--out", str(out), "--rules", str(rules)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "no alert in all that time" in result.output
    assert list(out.iterdir()) == []


def test_what_cannot_be_used_is_refused(market: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    nothing = runner.invoke(app, ["alerts", "cards"])
    assert "--candles or --trades" in str(nothing.exception)
    file = tmp_path / "file"
    file.write_text("")
    arguments = ["alerts", "cards", "--candles", str(market), "--out", str(file / "cards")]
    refused = runner.invoke(app, arguments)
    assert "a folder that can be written" in str(refused.exception)
