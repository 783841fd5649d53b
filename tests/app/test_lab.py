"""The laboratory reads what it is given, cheats nowhere, and counts what it says it counts."""

from __future__ import annotations

import lzma
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from perpwatch.app.lab import LabOptions, LabReport, rules_from_files, run_lab, to_json, to_text
from perpwatch.app.lab_files import grid, read_candles, read_labels, read_tape, roll_up
from perpwatch.app.lab_page import to_html
from perpwatch.detect.rules import PRESETS, Condition, Rule
from perpwatch.errors import ConfigurationError
from perpwatch.market import candles as market_candles
from perpwatch.model import MINUTE_MS, Timeframe, Trust

START_MS = 1_617_580_800_000  # 2021-04-05 00:00 UTC
DAY = 1440


def write_candles(
    folder: Path,
    symbol: str,
    minutes: int,
    seed: int,
    *,
    burst_at: Sequence[int] = (),
    missing: Sequence[int] = (),
    step: int = 1,
    start: int = 0,
) -> None:
    """A quiet market with bursts: a hundredfold volume and a rise of 10 %, which stays."""
    random = np.random.default_rng(seed)
    price = 100.0
    rows = ["t_ms,open,high,low,close,volume"]
    for minute in range(start, minutes, step):
        volume, move = float(random.lognormal(3.0, 0.5)), float(random.normal(0.0, 0.0005))
        if minute in burst_at:
            volume, move = 3000.0, 0.1
        close = price * (1.0 + move)
        if minute not in missing:
            high, low = max(price, close), min(price, close)
            rows.append(f"{START_MS + minute * MINUTE_MS},{price!r},{high!r},{low!r},{close!r},{volume!r}")
        price = close
    folder.mkdir(exist_ok=True)
    with lzma.open(folder / f"{symbol}.csv.xz", "wt") as file:
        file.write("\n".join(rows) + "\n")


def write_tape(folder: Path, name: str, minutes: int, *, burst_ms: int | None = None) -> None:
    """Four trades a minute; from the burst on, fifty large buys in a minute, in pairs of one millisecond."""
    random = np.random.default_rng(1)
    price = 1.0
    rows = ["symbol,timestamp,datetime,side,price,amount,btc_volume"]
    for minute in range(minutes):
        at_ms = START_MS + minute * MINUTE_MS
        trades = [(at_ms + 15_000 * n, 10.0, float(random.normal(0.0, 0.0002))) for n in range(4)]
        if burst_ms is not None and at_ms <= burst_ms < at_ms + MINUTE_MS:
            trades += [(burst_ms + 1000 * (n // 2), 100.0, 0.003) for n in range(50)]
        for time_ms, amount, move in sorted(trades):
            price *= 1.0 + move
            rows.append(f"ABC/BTC,{time_ms},,{'buy' if move > 0 else 'sell'},{price!r},{amount},")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")


def alert_minutes(report: LabReport, symbol: str) -> list[int]:
    return [(alert.time_ms - START_MS) // MINUTE_MS for alert in report.alerts if alert.symbol == symbol]


# --- Candles ----------------------------------------------------------------------------------------------------------


def test_bursts_are_found_when_their_candle_closes_and_the_first_day_is_not_counted(tmp_path: Path) -> None:
    for number, symbol in enumerate(("AAA_USDT", "BBB_USDT", "CCC_USDT", "DDD_USDT")):
        write_candles(tmp_path, symbol, 2 * DAY, number, burst_at=[700, 2000] if symbol == "BBB_USDT" else ())
    report = run_lab(LabOptions(candles=[tmp_path]))
    (row,) = report.sets
    assert alert_minutes(report, "BBB_USDT") == [2001]
    assert (row.symbols, row.days, row.market_alerts) == (4, 1.0, 0)
    assert row.alerts_per_day_per_750 == pytest.approx(row.alerts * 750 / 4)
    (alert,) = [alert for alert in report.alerts if alert.symbol == "BBB_USDT"]
    assert (alert.timeframe, alert.direction) == ("Min1", "up")
    assert {reason["name"] for reason in alert.reasons} >= {"move", "move_ratio", "turnover_ratio", "rarity"}


def test_a_burst_of_all_symbols_is_one_market_alert(tmp_path: Path) -> None:
    for number in range(5):
        write_candles(tmp_path, f"S{number}_USDT", 2 * DAY, number, burst_at=[2000])
    report = run_lab(LabOptions(candles=[tmp_path]))
    (row,) = report.sets
    assert row.market_alerts == 1
    assert row.alerts >= 5
    assert all(alert.is_merged for alert in report.alerts if alert.time_ms == START_MS + 2001 * MINUTE_MS)


def test_the_first_busy_minutes_after_an_outage_raise_no_alert(tmp_path: Path) -> None:
    outage = range(1800, 1950)
    for number in range(3):
        write_candles(tmp_path, f"S{number}_USDT", 2 * DAY, number, burst_at=[1950, 1952], missing=outage)
    report = run_lab(LabOptions(candles=[tmp_path]))
    assert not [alert for alert in report.alerts if alert.time_ms < START_MS + 2010 * MINUTE_MS]
    assert report.sets[0].days == pytest.approx((DAY - 150) / DAY)


def test_a_minute_missing_in_one_file_is_a_quiet_minute_there(tmp_path: Path) -> None:
    write_candles(tmp_path, "AAA_USDT", 2 * DAY, 1)
    write_candles(tmp_path, "BBB_USDT", 2 * DAY, 2, missing=range(1900, 1990), burst_at=[1990])
    report = run_lab(LabOptions(candles=[tmp_path]))
    assert 1991 in alert_minutes(report, "BBB_USDT")


def test_a_symbol_listed_late_is_watched_from_its_first_candle(tmp_path: Path) -> None:
    write_candles(tmp_path, "AAA_USDT", 2 * DAY, 1)
    write_candles(tmp_path, "NEW_USDT", 2 * DAY, 2, start=DAY + 60, burst_at=[DAY + 65, DAY + 600])
    report = run_lab(LabOptions(candles=[tmp_path]))
    assert alert_minutes(report, "NEW_USDT") == [DAY + 601]
    assert next(alert for alert in report.alerts if alert.symbol == "NEW_USDT").is_learning


def test_five_minute_candles_are_enough(tmp_path: Path) -> None:
    write_candles(tmp_path, "AAA_USDT", 4 * DAY, 1, step=5, burst_at=[3 * DAY])
    write_candles(tmp_path, "BBB_USDT", 4 * DAY, 2, step=5)
    report = run_lab(LabOptions(candles=[tmp_path]))
    assert alert_minutes(report, "AAA_USDT")[0] == 3 * DAY + 5
    assert report.sets[0].days == 3.0


def test_labels_are_found_or_missed(tmp_path: Path) -> None:
    write_candles(tmp_path / "set", "AAA_USDT", 3 * DAY, 1, burst_at=[2000])
    write_candles(tmp_path / "set", "BBB_USDT", 3 * DAY, 2)
    labels = tmp_path / "labels.csv"
    labels.write_text("symbol,time\nAAA,2021-04-06 09:20:00\nBBB_USDT,2021-04-06T10:00:00Z\nZZZ,2021-04-06 10:00\n")
    report = run_lab(LabOptions(candles=[tmp_path / "set"], labels=labels))
    (row,) = report.sets
    assert (row.events_total, row.events_found_window, row.events_found_3min) == (2, 1, 1)
    assert row.latency_s_median == 60.0
    assert [event.is_found for event in report.events] == [True, False]


def test_rules_are_measured_side_by_side_and_do_not_touch_each_other(tmp_path: Path) -> None:
    write_candles(tmp_path, "AAA_USDT", 2 * DAY, 1, burst_at=[2000])
    both = [Rule("rarity", (Condition("rarity"),)), Rule("breakout", (Condition("breakout", {"price": 1.05}),))]
    report = run_lab(LabOptions(candles=[tmp_path], rules=both))
    assert [row.rule for row in report.sets] == ["rarity", "breakout"]
    alone = run_lab(LabOptions(candles=[tmp_path], rules=both[1:]))
    assert alone.sets[0] == report.sets[1]
    text = to_text(report)
    assert "rarity" in text
    assert len(text.splitlines()) == 4


def test_rules_come_from_files_beside_the_default(tmp_path: Path) -> None:
    (tmp_path / "quiet.toml").write_text('[rules.quiet]\ndetector = "rarity"\nrisk = 1e-5\nmove = 6.0\n')
    write_candles(tmp_path / "set", "AAA_USDT", 2 * DAY, 1, burst_at=[2000])
    rules = rules_from_files([tmp_path / "quiet.toml"])
    report = run_lab(LabOptions(candles=[tmp_path / "set"], rules=rules))
    assert [(row.rule, row.risk_at_end) for row in report.sets] == [("default", 1e-4), ("quiet", 1e-5)]
    assert report.sets[1].alerts <= report.sets[0].alerts


def test_a_budget_moves_the_risk(tmp_path: Path) -> None:
    for number in range(4):
        write_candles(tmp_path, f"S{number}_USDT", 3 * DAY, number)
    report = run_lab(LabOptions(candles=[tmp_path], budget=100.0))
    assert (report.sets[0].risk_at_end or 0.0) > 1e-4


def test_the_report_is_json_and_the_same_each_time(tmp_path: Path) -> None:
    write_candles(tmp_path, "AAA_USDT", 2 * DAY, 1, burst_at=[2000])
    told: list[tuple[float, float, str]] = []
    first = to_json(run_lab(LabOptions(candles=[tmp_path]), lambda *what: told.append(what)))
    assert first == to_json(run_lab(LabOptions(candles=[tmp_path])))
    decoded = msgspec.json.decode(first)
    assert set(decoded) == {"sets", "alerts", "events"}
    assert told[0] == (0.0, 1.0, tmp_path.name)
    assert told[-1] == (1.0, 1.0, tmp_path.name)


# --- Roll-up ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeframe", [Timeframe.Min5, Timeframe.Min15, Timeframe.Min60])
def test_roll_up_equals_the_live_one_candle_by_candle(timeframe: Timeframe) -> None:
    random = np.random.default_rng(4)
    size = 3 * 60 + 17
    opens = START_MS + (np.arange(size) + 7) * MINUTE_MS
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, size)))
    rows = np.column_stack([opens, close, close * 1.01, close * 0.99, close, *random.lognormal(3, 1, (2, size))])
    rows = np.delete(rows, [30, 31, 90, 125], axis=0)
    known = np.delete(opens, [30, 31])  # two minutes lost, two quiet
    minutes = grid("ABC_USDT", Timeframe.Min1, rows, known)
    end_ms = minutes.start_ms + size * MINUTE_MS
    until_ms = end_ms - end_ms % timeframe.milliseconds
    expected = market_candles.roll_up_all(
        [one for one in minutes.closing(0, end_ms) if not one.missing_minutes], timeframe, until_ms=until_ms
    )
    rolled = roll_up(minutes, timeframe).closing(0, until_ms)
    assert len(rolled) == len(expected) > 2
    for mine, theirs in zip(rolled, expected, strict=True):
        assert (mine.open_time_ms, mine.missing_minutes) == (theirs.open_time_ms, theirs.missing_minutes)
        assert (mine.open, mine.high, mine.low, mine.close) == (theirs.open, theirs.high, theirs.low, theirs.close)
        assert (mine.base_volume, mine.turnover) == (theirs.base_volume, theirs.turnover)
        assert (mine.trust is Trust.UNKNOWN) == (theirs.trust is Trust.UNKNOWN)


# --- Tapes ------------------------------------------------------------------------------------------------------------


def test_a_tape_is_judged_at_every_batch_of_trades_when_asked(tmp_path: Path) -> None:
    burst_ms = START_MS + 2000 * MINUTE_MS + 20_000
    write_tape(tmp_path, "ABC_2021-04-06_09.20", 3 * DAY, burst_ms=burst_ms)
    closed = run_lab(LabOptions(trades=[tmp_path]))
    running = run_lab(LabOptions(trades=[tmp_path], is_intrabar=True))
    assert alert_minutes(closed, "ABC_BTC")[0] == 2001
    first = next(alert for alert in running.alerts if alert.time_ms >= burst_ms)
    # Three rush orders are in after two seconds.
    assert burst_ms + 2000 <= first.time_ms <= burst_ms + 5000
    figures = {reason["name"]: reason["value"] for reason in first.reasons}
    assert float(figures["rush_orders"]) >= 3.0
    (row,) = closed.sets
    assert (row.events_total, row.events_found_window, row.latency_s_median) == (1, 1, 60.0)


def test_an_official_label_replaces_the_announced_time(tmp_path: Path) -> None:
    write_tape(tmp_path / "tapes", "ABC_2021-04-06_09.20", 3 * DAY, burst_ms=START_MS + 2000 * MINUTE_MS + 20_000)
    labels = tmp_path / "labels.csv"
    labels.write_text("date,symbol\n2021-04-06 09:20:20,ABC\n2021-05-06 09:20:20,ABC\n")
    report = run_lab(LabOptions(trades=[tmp_path / "tapes"], labels=labels))
    (event,) = report.events
    assert (event.is_official, event.latency_s) == (True, 40.0)


def test_a_silence_far_beyond_the_others_of_a_tape_is_an_outage(tmp_path: Path) -> None:
    write_tape(tmp_path, "ABC", 3 * DAY, burst_ms=START_MS + 2000 * MINUTE_MS)
    lines = (tmp_path / "ABC.csv").read_text().splitlines()
    header, rows = lines[0], lines[1:]
    kept = [row for row in rows if not 1800 <= (int(row.split(",")[1]) - START_MS) // MINUTE_MS < 1990]
    (tmp_path / "ABC.csv").write_text("\n".join([header, *kept]) + "\n")
    report = run_lab(LabOptions(trades=[tmp_path]))
    assert not [minute for minute in alert_minutes(report, "ABC_BTC") if 1800 <= minute < 2020]


def test_a_tape_has_exact_turnover(tmp_path: Path) -> None:
    write_tape(tmp_path, "ABC", 5)
    tape = read_tape(tmp_path / "ABC.csv")
    assert tape.symbol == "ABC_BTC"
    assert len(tape.price) == 20


# --- Labels and wrong input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "symbol,time\nABC,2021-04-06 09:20:00\n",
        "symbol,time_ms\nABC,1617700800000\n",
        "coin,timestamp\nabc,1617700800\n",
        "symbol,group,date,hour,exchange\nABC,X,2021-04-06,09:20,binance\n",
        "date,symbol\n2021-04-06T11:20:00+02:00,ABC\n",
    ],
)
def test_label_lists_in_several_spellings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    assert [(label.symbol, label.start_ms) for label in read_labels(path)] == [("ABC", 1_617_700_800_000)]


def test_an_event_announced_by_several_groups_is_one_event(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("symbol,time\nABC,2021-04-06 09:19\nABC,2021-04-06 09:20\nXYZ,2021-04-06 09:20\n")
    assert [label.symbol for label in read_labels(path)] == ["ABC", "XYZ"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"A\.csv'.*the file is empty"),
        ("t_ms,open,high,low,close,volume\n", "at least one row below the header"),
        ("time,o,h,l,c\n1,2,3,4,5\n", r"A\.csv:1: .*a column volume, called volume"),
        ("t_ms,open,high,low,close,volume\n1,2,2,2,2,1\n1,2,3,1,five,6\n", r"A\.csv:3: close = 'five'.*a number"),
        ("t_ms,open,high,low,close,volume\n1,2,2,2\n", r"A\.csv:2'.*at least 5 cells, not 4"),
        ("t_ms,open,high,low,close,volume\n1,2,2,2,2,1\n2,2,2,3,2,1\n", r"A\.csv:3: .*a high not below the low"),
        ("t_ms,open,high,low,close,volume\n1,2,2,2,nan,1\n", r"A\.csv:2: .*prices above 0"),
        ("t_ms,open,high,low,close,volume\n120000,2,2,2,2,1\n240000,2,2,2,2,1\n360000,2,2,2,2,1\n", "1, 5, 15 or 60"),
    ],
)
def test_a_wrong_candle_file_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "A.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        run_lab(LabOptions(candles=[tmp_path]))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("timestamp,side,price\n1,buy,3\n", "a column amount"),
        ("timestamp,side,price,amount\n1,buy,3,1\n2,hold,3,1\n", r"A\.csv:3: side 'hold'.*buy or sell"),
        ("timestamp,side,price,amount\n1,buy,-3,1\n", r"A\.csv:2: .*a price above 0"),
        ("timestamp,side,price,amount\n1,buy,3,1\n", "a tape of several minutes"),
    ],
)
def test_a_wrong_tape_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "A.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        run_lab(LabOptions(trades=[tmp_path]))


def test_wrong_folders_and_labels_are_refused_with_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least one folder"):
        run_lab(LabOptions())
    with pytest.raises(ConfigurationError, match=r"with \.csv.*it holds none"):
        run_lab(LabOptions(candles=[tmp_path]))
    with pytest.raises(ConfigurationError, match="there is none of this name"):
        run_lab(LabOptions(candles=[tmp_path / "nowhere"]))
    (tmp_path / "A.csv.xz").write_bytes(b"no xz at all")
    with pytest.raises(ConfigurationError, match=r"A\.csv\.xz.*a readable CSV"):
        run_lab(LabOptions(candles=[tmp_path]))
    with pytest.raises(ConfigurationError, match="this is a file"):
        run_lab(LabOptions(candles=[tmp_path / "A.csv.xz"]))
    labels = tmp_path / "labels.txt"
    labels.write_text("symbol,time\nABC,2021-04-06\nABC,yesterday\n")
    with pytest.raises(ConfigurationError, match=r"labels\.txt:3: yesterday.*a UTC time"):
        read_labels(labels)
    with pytest.raises(ConfigurationError, match="a readable CSV"):
        read_labels(tmp_path / "none.csv")


def test_candle_files_are_read_in_other_spellings(tmp_path: Path) -> None:
    expected = [
        [1_617_580_800_000.0, 1.0, 2.0, 0.5, 1.5, 10.0, 12.5],
        [1_617_580_860_000.0, 1.0, 2.0, 0.5, 1.5, 0.0, 0.0],
    ]
    spellings = (
        "Volume,close,low,high,open,t_ms,x\n0,1.5,.5,2,1,1617580860000,\n10,1.5,.5,2,1,1617580800000,\n",
        "time;open;high;low;close;volume\n1617580800;1;2;.5;1.5;10\n1617580860;1;2;.5;1.5;0\n",
        "date,open,high,low,close,volume\n2021-04-05 00:00:00,1,2,.5,1.5,10\n2021-04-05T00:01:00Z,1,2,.5,1.5,0\n",
        "1617580800000000,1,2,.5,1.5,10\n1617580860000000,1,2,.5,1.5,0\n",
        "\ufeffopen_time,open,high,low,close,volume\r\n1617580800000,1,2,.5,1.5,10\r\n1617580860000,1,2,.5,1.5,0\r\n",
    )
    for text in spellings:
        (tmp_path / "A.csv").write_text(text, encoding="utf-8", newline="")
        assert read_candles(tmp_path / "A.csv").tolist() == expected
    (tmp_path / "A.csv").write_text("t_ms,open,high,low,close,volume,quote_volume\n1617580800000,1,2,.5,1.5,10,17\n")
    assert read_candles(tmp_path / "A.csv")[0, 6] == 17.0


def test_tapes_are_read_in_other_spellings(tmp_path: Path) -> None:
    (tmp_path / "ABC_x.csv").write_text(
        "price,qty,time,is_buyer_maker\n2,5,1617580801000,true\n1,3,1617580800000,false\n"
    )
    tape = read_tape(tmp_path / "ABC_x.csv")
    assert (tape.symbol, tape.price.tolist(), tape.is_buy.tolist()) == ("ABC", [1.0, 2.0], [True, False])


# --- Many at once -----------------------------------------------------------------------------------------------------


def test_figures_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for number in range(3):
        write_candles(tmp_path / "set", f"S{number}_USDT", 2 * DAY, number, burst_at=[2000 + 100 * number])
        write_tape(tmp_path / "tapes", f"T{number}", 2 * DAY, burst_ms=START_MS + 2000 * MINUTE_MS)
    rules = [PRESETS["default"], PRESETS["breakout"]]
    options = LabOptions(candles=[tmp_path / "set"], trades=[tmp_path / "tapes"], rules=rules)
    told: list[float] = []
    alone = run_lab(options)
    together = run_lab(replace(options, processes=2), lambda done, total, text: told.append(done / total))
    assert to_json(alone) == to_json(together)
    assert told[-1] == pytest.approx(1.0)
    assert told == sorted(told)


def test_an_error_in_another_process_is_told_like_one_in_this(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "A.csv").write_text("t_ms,open,high,low,close,volume\n1,2,2,2,oops,1\n")
    with pytest.raises(ConfigurationError, match="oops"):
        run_lab(LabOptions(candles=[tmp_path / "one", tmp_path / "two"], processes=2))


# --- What came of it, and the page ------------------------------------------------------------------------------------


def test_alerts_are_judged_by_what_came_of_them_and_carry_a_score(tmp_path: Path) -> None:
    for number in range(2):
        write_candles(tmp_path, f"S{number}_USDT", 4 * DAY, number, burst_at=[2000, 3000, 4000, 5000])
    report = run_lab(LabOptions(candles=[tmp_path]))
    outcome = report.sets[0].outcome
    assert outcome is not None
    assert outcome.alerts == report.sets[0].alerts
    assert outcome.random_hit_rate is not None
    burst = next(alert for alert in report.alerts if (alert.time_ms - START_MS) // MINUTE_MS == 2001)
    assert burst.score is not None
    assert burst.score > 0.5
    assert any(str(reason["text"]).startswith("pump score 0.") for reason in burst.reasons)
    assert run_lab(LabOptions(candles=[tmp_path], has_outcomes=False)).sets[0].outcome is None


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    write_candles(tmp_path / "set", "A<B_USDT", 3 * DAY, 1, burst_at=[2000, 3000])
    labels = tmp_path / "labels.csv"
    labels.write_text("symbol,time\nA<B,2021-04-06 09:20:00\n")
    rules = [PRESETS["default"], PRESETS["quiet"]]
    page = to_html(run_lab(LabOptions(candles=[tmp_path / "set"], rules=rules, labels=labels)), rules)
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") >= 3
    assert "A&lt;B_USDT" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"https?:", page)
    assert page == to_html(run_lab(LabOptions(candles=[tmp_path / "set"], rules=rules, labels=labels)), rules)
