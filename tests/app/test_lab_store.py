"""What a watch has kept is as good for the laboratory as files are."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from test_lab import DAY, START_MS, write_candles
from typer.testing import CliRunner

from perpwatch.app.cli import app
from perpwatch.app.lab import LabOptions, LabReport, run_lab
from perpwatch.app.lab_files import all_timeframes, read_market
from perpwatch.app.lab_store import StoredPast
from perpwatch.detect.rules import PRESETS, Condition, Rule
from perpwatch.errors import ConfigurationError
from perpwatch.model import MINUTE_MS, Candle, Contract, Timeframe
from perpwatch.store import HOUR_MS, TRUST_CODES, Database, LedgerHour, Record, Retracted, Writer

SYMBOLS = ("AAA_USDT", "BBB_USDT", "CCC_USDT", "DDD_USDT")
OUTAGE = range(1800, 1950)
BURST = 2400
#: The market lies in 2021, and the commands count back from now.
EVERYTHING = ("--since", "9000d")
RULES = """
[rules.moves]
detector = "rarity"
move = 6.0

[rules.metals]
detector = "rarity"
classes = ["metal"]

[rules.interest]
detector = "open_interest"
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two days of four symbols, with an outage and a burst of one of them."""
    for number, symbol in enumerate(SYMBOLS):
        burst_at = [1950, BURST] if symbol == "BBB_USDT" else ()
        write_candles(tmp_path / "files", symbol, 2 * DAY, number, burst_at=burst_at, missing=OUTAGE)
    return tmp_path / "files"


@pytest.fixture
async def address(files: Path, tmp_path: Path) -> str:
    """A store in which the same market was kept, and only AAA_USDT is said to be metal."""
    url = f"sqlite:///{tmp_path}/perpwatch.db"
    candles = [
        candle
        for series in read_market(files).series
        for longer in all_timeframes(series)
        for candle in longer.closing(series.start_ms, series.end_ms)
    ]
    contracts = [
        Contract(symbol, symbol[:3], "USDT", "USDT", 1.0, zones=("metal" if symbol == "AAA_USDT" else "coin",))
        for symbol in SYMBOLS
    ]
    await store(url, [*contracts, *candles, *ledger(candles)])
    return url


async def store(url: str, records: list[Record]) -> None:
    database = Database.open(url)
    async with Writer(database) as writer:
        writer.put_now(*records)
    database.close()


def ledger(candles: list[Candle]) -> list[LedgerHour]:
    hours: dict[tuple[str, int], bytearray] = {}
    for candle in candles:
        if candle.timeframe is Timeframe.Min1:
            key = candle.symbol, candle.open_time_ms - candle.open_time_ms % HOUR_MS
            codes = hours.setdefault(key, bytearray(60))
            codes[candle.open_time_ms % HOUR_MS // MINUTE_MS] = TRUST_CODES[candle.trust]
    return [LedgerHour(symbol, hour_ms, bytes(codes)) for (symbol, hour_ms), codes in hours.items()]


def past_of(address: str) -> StoredPast:
    past = StoredPast.of(address, 0, START_MS + 30 * DAY * MINUTE_MS)
    assert past is not None
    return past


def found(report: LabReport) -> list[tuple[object, ...]]:
    return [(one.rule, one.symbol, one.time_ms, one.timeframe, one.reasons[0]["value"]) for one in report.alerts]


def test_the_stored_past_gives_the_alerts_and_figures_that_its_candles_give_as_files(files: Path, address: str) -> None:
    rules = (PRESETS["default"], PRESETS["plain_pump"])
    of_files = run_lab(LabOptions(candles=[files], rules=rules))
    of_store = run_lab(LabOptions(stored=past_of(address), rules=rules))
    assert found(of_store) == found(of_files)
    assert {one[1:3] for one in found(of_store)} >= {("BBB_USDT", START_MS + (BURST + 1) * MINUTE_MS)}
    for stored, read in zip(of_store.sets, of_files.sets, strict=True):
        assert stored == msgspec.structs.replace(read, name="stored past")
    assert of_store.sets[0].days == pytest.approx((DAY - len(OUTAGE)) / DAY)


async def test_what_was_retracted_raises_no_alert(address: str) -> None:
    burst_ms = START_MS + BURST * MINUTE_MS
    await store(address, [Retracted("BBB_USDT", burst_ms, burst_ms + MINUTE_MS)])
    report = run_lab(LabOptions(stored=past_of(address)))
    assert not [one for one in report.alerts if one.time_ms >= burst_ms]


def test_classes_are_those_that_the_store_knows(address: str) -> None:
    rules = [Rule(name, (Condition("rarity"),), classes=(name,)) for name in ("coin", "metal")]
    report = run_lab(LabOptions(stored=past_of(address), rules=rules))
    assert "BBB_USDT" in {one.symbol for one in report.alerts if one.rule == "coin"}
    assert "BBB_USDT" not in {one.symbol for one in report.alerts if one.rule == "metal"}


def test_the_figures_do_not_depend_on_the_processes(address: str) -> None:
    rules = (PRESETS["default"], PRESETS["plain_pump"])
    reports = [run_lab(LabOptions(stored=past_of(address), rules=rules, processes=count)) for count in (1, 2)]
    assert reports[0] == reports[1]


def test_nothing_is_found_where_nothing_was_kept(address: str) -> None:
    assert StoredPast.of(address, START_MS + 30 * DAY * MINUTE_MS, START_MS + 31 * DAY * MINUTE_MS) is None


# --- The commands -----------------------------------------------------------------------------------------------------


def run(*words: object) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.fixture
def settings(address: str, tmp_path: Path) -> Path:
    """A configuration beside which the store lies."""
    path = tmp_path / "perpwatch.toml"
    path.write_text(f'[store]\nurl = "{address}"\n')
    return path


def test_checking_rules_says_how_often_each_would_have_fired_in_the_stored_past(settings: Path) -> None:
    path = settings.with_name("rules.toml")
    path.write_text(RULES)
    words = ("rules", "check", path, "--config", settings, "--processes", 1)
    printed, told = run(*words, *EVERYTHING, "--format", "json")
    rows = {row["rule"]: row for row in json.loads(printed)["sets"]}
    assert rows.keys() == {"moves", "metals", "interest"}
    assert {row["name"] for row in rows.values()} == {"stored past"}
    assert rows["moves"]["alerts"] >= 1
    assert rows["interest"]["alerts"] == 0
    assert "open_interest: what they look at is in no candle" in told
    # Nothing was kept of the last days; the rules are none the worse for it.
    printed, told = run(*words)
    assert printed.splitlines()[0].startswith("moves: rarity")
    assert "nothing is known of the last 3d" in told


def test_a_store_that_is_not_there_is_no_fault_of_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "perpwatch.toml").write_text("")
    printed, told = run("rules", "check", tmp_path / "rules.toml", "--config", tmp_path / "perpwatch.toml")
    assert len(printed.splitlines()) == 3
    assert "there is no such file yet" in told


def test_the_laboratory_takes_the_stored_past_beside_files(settings: Path, files: Path) -> None:
    words = ("lab", "--candles", files, "--stored", "--config", settings, "--processes", 1, "--format", "json")
    printed, _ = run(*words, *EVERYTHING)
    sets = json.loads(printed)["sets"]
    assert [row["name"] for row in sets] == ["files", "stored past"]
    assert sets[0] | {"name": ""} == sets[1] | {"name": ""}
    with pytest.raises(ConfigurationError, match="of which the store knows something"):
        run(*words)
