"""Candles and trades of the past reach the engine as a live feed would bring them."""

from __future__ import annotations

import random
from pathlib import Path

import polars
import pytest
from typer.testing import CliRunner

from perpwatch.app.analysis import Analysis
from perpwatch.app.cli import app
from perpwatch.app.engine import Engine, Step
from perpwatch.app.export import CANDLES
from perpwatch.app.history import HistoryFeed, read_history
from perpwatch.app.replay import Past
from perpwatch.errors import ConfigurationError
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Batch, Candle, Timeframe, Trust

T0 = 1_791_201_600_000
REAL = Path(__file__).parents[3] / "shared" / "data"
HEADER = "time,open,high,low,close,volume\n"


def closed(feed: HistoryFeed, *, is_intrabar: bool = False) -> tuple[dict[tuple[str, int], Candle], list[Step]]:
    """The minutes that the engine closed, and its steps."""
    engine = Engine(Analysis(), ANALYSED_TIMEFRAMES, is_intrabar=is_intrabar)
    minutes: dict[tuple[str, int], Candle] = {}
    steps: list[Step] = []
    past = Past(feed, engine)

    def on_step(batch: Batch, step: Step) -> None:
        steps.append(step)
        for candle in step.outcome.closed:
            if candle.timeframe is Timeframe.Min1:
                assert batch.watermark_ms >= candle.close_time_ms
                minutes[candle.symbol, (candle.open_time_ms - T0) // MINUTE_MS] = candle

    past.on_step = on_step
    for _ in past.steps():
        pass
    return minutes, steps


def row(minute: int, price: float, volume: float) -> str:
    return f"{T0 + minute * MINUTE_MS},{price},{price + 1},{price - 1},{price + 0.5},{volume}\n"


def test_minutes_are_closed_as_they_were_and_what_is_missing_is_not_invented(tmp_path: Path) -> None:
    # Minute 3 is missing in one file, where the market was up; minutes 5 and 6 in both.
    (tmp_path / "A_USDT.csv").write_text(HEADER + "".join(row(m, 100.0 + m, 2.0) for m in (0, 1, 2, 3, 4, 7, 8)))
    (tmp_path / "B_USDT.csv").write_text(HEADER + "".join(row(m, 50.0 + m, 3.0) for m in (0, 1, 2, 4, 7, 8)))
    minutes, steps = closed(read_history([tmp_path], []))
    known = {key for key, candle in minutes.items() if candle.trust is not Trust.UNKNOWN and not candle.missing_minutes}
    assert known == {(symbol, minute) for symbol in ("A_USDT", "B_USDT") for minute in (0, 1, 2, 3, 4, 7, 8)}
    assert minutes["A_USDT", 7].close == 107.5
    assert minutes["A_USDT", 7].turnover == 2.0 * (107.0 + 107.5) / 2.0
    assert (minutes["B_USDT", 3].turnover, minutes["B_USDT", 3].close) == (0.0, 52.5)
    lost = {(span.symbol, (span.start_ms - T0) // MINUTE_MS) for step in steps for span in step.outcome.lost}
    assert {("A_USDT", 5), ("B_USDT", 5)} <= lost


def test_parquet_of_an_export_gives_what_csv_gives(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "A_USDT.csv").write_text(HEADER + "".join(row(m, 100.0 + m, 2.0) for m in range(40)))
    from_csv, _ = closed(read_history([tmp_path / "csv"], []))
    rows = [
        ("A_USDT", "Min1", T0 + m * MINUTE_MS, 100.0 + m, 101.0 + m, 99.0 + m, 100.5 + m, 2.0, 2.0, 2.0 * (100.25 + m))
        for m in range(40)
    ]
    table = polars.DataFrame([(*one, "rest", "verified", *[None] * 4, False, 0) for one in rows], CANDLES, orient="row")
    table.write_parquet(tmp_path / "candles" / "date=2026-10-05" / "candles.parquet", mkdir=True)
    from_parquet, _ = closed(read_history([tmp_path / "candles"], []))
    assert from_parquet == from_csv
    assert len(from_csv) == 40


def tape(path: Path, seed: int = 1) -> None:
    """Ten minutes of trades; none in minutes 4 and 5."""
    random_ = random.Random(seed)
    times = [t for t in range(0, 10 * MINUTE_MS, 700) if t // MINUTE_MS not in (4, 5)]
    lines = [
        f"{T0 + t},{random_.choice(('buy', 'sell'))},{100 + random_.random()},{1 + random_.random()}" for t in times
    ]
    path.write_text("timestamp,side,price,amount\n" + "\n".join(lines) + "\n")


def test_a_tape_is_pushed_trade_by_trade(tmp_path: Path) -> None:
    tape(tmp_path / "A_USDT_one.csv")
    feed = read_history([], [tmp_path])
    minutes, steps = closed(feed, is_intrabar=True)
    assert feed.contracts[0].symbol == "A"
    trades = sum(len(event.trades) for step in steps for event in step.events if hasattr(event, "trades"))
    lines = (tmp_path / "A_USDT_one.csv").read_text().splitlines()[1:]
    assert trades == len(lines)
    of_seven = [line.split(",") for line in lines if (int(line.split(",")[0]) - T0) // MINUTE_MS == 7]
    assert minutes["A", 7].turnover == pytest.approx(sum(float(one[2]) * float(one[3]) for one in of_seven), rel=1e-12)
    assert minutes["A", 7].close == float(of_seven[-1][2])
    assert {minute for _, minute in minutes} >= {1, 2, 3, 4, 5, 6, 7, 8}
    assert minutes["A", 5].turnover == 0.0


def test_what_cannot_be_a_feed_is_refused_in_words(tmp_path: Path) -> None:
    five = tmp_path / "five"
    five.mkdir()
    (five / "A_USDT.csv").write_text(HEADER + "".join(row(5 * m, 100.0, 2.0) for m in range(9)))
    with pytest.raises(ConfigurationError, match="one minute"):
        read_history([five], [])
    one = tmp_path / "one"
    one.mkdir()
    (one / "A_USDT.csv").write_text(HEADER + "".join(row(m, 100.0, 2.0) for m in range(9)))
    with pytest.raises(ConfigurationError) as refused:
        read_history([one, one], [])
    expected = f"--candles = '{one} and {one}': A_USDT once at a time; these overlap by 0.15 h, leave one of them out"
    assert str(refused.value) == expected
    tapes = tmp_path / "tapes"
    tapes.mkdir()
    tape = "symbol,timestamp,datetime,side,price,amount,btc_volume\n" + "".join(
        f"A/BTC,{1_600_000_000_000 + 60_000 * number},-,buy,1.0,1.0,1.0\n" for number in range(121)
    )
    for name in ("A_2020-09-13_12.00.csv", "A_2020-09-13_13.00.csv"):
        (tapes / name).write_text(tape)
    overlap = r"--trades = '.*A_2020-09-13_12.00.csv and .*A_2020-09-13_13.00.csv': A_BTC once .* by 2 h"
    with pytest.raises(ConfigurationError, match=overlap):
        read_history([], [tapes])
    polars.DataFrame({"symbol": ["A"], "close": [1.0]}).write_parquet(tmp_path / "thin.parquet")
    with pytest.raises(ConfigurationError, match="columns open_time, open, high"):
        read_history([tmp_path / "thin.parquet"], [])
    (tmp_path / "odd.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConfigurationError, match="Parquet files that can be read"):
        read_history([tmp_path / "odd.parquet"], [])


def test_rules_are_tried_on_a_real_market(tmp_path: Path) -> None:
    folder = REAL / "candles_perp_usdt_2026-01"
    if not folder.is_dir():
        pytest.skip("the recorded markets are not here")
    # Two contracts of thirteen, so that it takes a second.
    for name in ("ZEC_USDT_PERP.csv.xz", "TRX_USDT_PERP.csv.xz"):
        (tmp_path / name).symlink_to(folder / name)
    rules = tmp_path / "mine.toml"
    rules.write_text('[rules.mine]\n[[rules.mine.conditions]]\ndetector = "volume_ratio"\nthresholds = { Min1 = 12 }\n')
    arguments = ["replay", "--candles", str(tmp_path), "--to", "2026-01-08", "--rules", str(rules)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "out" / "signals.jsonl").read_text().splitlines()
    assert 5 < len(lines) < 200
    assert all('"rule":"mine"' in line for line in lines)
