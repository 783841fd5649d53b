"""What the default finds, and how often it cries, on recorded markets.

They may not be shipped with the program (their sources state other licences or none): ``PERPWATCH_DATA`` names the
folder that holds them. The backgrounds take minutes and run only when ``PERPWATCH_PROOF`` is set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perpwatch.app.lab import LabOptions, LabReport, run_lab

DATA = Path(os.environ.get("PERPWATCH_DATA", Path(__file__).parents[3] / "shared" / "data"))

proof = pytest.mark.skipif("PERPWATCH_PROOF" not in os.environ, reason="takes minutes; set PERPWATCH_PROOF=1")


def folder(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"recorded markets are not at hand: {DATA / name}; set PERPWATCH_DATA")
    return DATA / name


def alerts_between(report: LabReport, start: str, end: str) -> list[str]:
    first, last = (datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000 for text in (start, end))
    return [f"{alert.symbol} {alert.timeframe}" for alert in report.alerts if first <= alert.time_ms <= last]


def test_labelled_pumps_are_found_on_closed_candles() -> None:
    tapes = folder("trades_pump_btc")
    (row,) = run_lab(LabOptions(trades=[tapes], labels=folder("pump_lists") / "label_5S.csv")).sets
    assert row.events_total == 31
    assert row.events_found_window >= 29
    assert row.events_found_3min >= 26


@proof
@pytest.mark.timeout(600)
def test_labelled_pumps_are_found_within_seconds_on_running_candles() -> None:
    tapes = folder("trades_pump_btc")
    labels = folder("pump_lists") / "label_5S.csv"
    (row,) = run_lab(LabOptions(trades=[tapes], labels=labels, is_intrabar=True)).sets
    assert row.latency_events >= 20
    assert row.latency_s_median is not None
    assert row.latency_s_median <= 5.0
    assert row.other_alerts_per_coin_day is not None
    assert row.other_alerts_per_coin_day <= 0.6


@proof
@pytest.mark.timeout(600)
def test_thin_markets_with_outages_stay_within_the_load_and_no_outage_alerts() -> None:
    report = run_lab(LabOptions(candles=[folder("candles_spot_btc_2020-02")], warm_up_days=1.0))
    assert report.sets[0].alerts_per_day_per_750 <= 350.0
    assert alerts_between(report, "2020-02-19 11:36", "2020-02-19 18:00") == []


@proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [
        "candles_perp_usdt_2023-07",
        "candles_perp_usdt_2026-01",
        "candles_perp_usdt_5m_2023-07",
        "candles_spot_usdt_2021-04",
    ],
)
def test_the_default_alerts_at_most_350_times_a_day_per_750_symbols(name: str) -> None:
    report = run_lab(LabOptions(candles=[folder(name)]))
    assert report.sets[0].alerts_per_day_per_750 <= 350.0
    if name == "candles_spot_usdt_2021-04":
        assert alerts_between(report, "2021-04-20 02:00", "2021-04-20 05:00") == []


@proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("wanted", [10.0, 40.0, 200.0])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_the_budget_is_met_in_the_second_week(wanted: float, is_scaled: bool) -> None:
    options = LabOptions(candles=[folder("candles_spot_usdt_2021-04")], budget=wanted, is_budget_scaled=is_scaled)
    (row,) = run_lab(options).sets
    told = _second_week(row.told_by_day) / 7.0
    assert told == pytest.approx(wanted * (row.symbols / 750 if is_scaled else 1.0), rel=0.25)


def _second_week(told_by_day: Mapping[str, int]) -> int:
    return sum(told_by_day.get(f"2021-04-{day}", 0) for day in range(12, 19))
