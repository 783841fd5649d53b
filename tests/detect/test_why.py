"""Reasons come in order of contribution, each once, and say nothing that is stale."""

from __future__ import annotations

from perpwatch.detect.why import Witness, in_order
from perpwatch.figures import times_text
from perpwatch.model import MINUTE_MS, Direction, Level, Reason, Signal, Ticker, Timeframe, Trust

START_MS = 1_617_580_800_000


def names(*reasons: tuple[str, float, str]) -> list[str]:
    return [reason.name for reason in in_order([Reason(*one) for one in reasons])]


def signal(time_ms: int, received_ms: int = 0, trust: Trust = Trust.STREAMED) -> Signal:
    return Signal(
        detector="rarity",
        symbol="ABC_USDT",
        timeframe=Timeframe.Min1,
        open_time_ms=time_ms,
        direction=Direction.UP,
        level=Level.NOTICE,
        price=1.0,
        strength=1.0,
        is_running=True,
        trust=trust,
        reasons=(),
        event_time_ms=time_ms,
        received_time_ns=received_ms * 1_000_000,
    )


def test_the_detectors_order_stays() -> None:
    own = [("turnover_ratio", 80.0, "x"), ("rarity", 1e-6, "per minute"), ("move", 3.0, "%"), ("move_ratio", 5.0, "x")]
    assert names(*own) == ["turnover_ratio", "rarity", "move", "move_ratio"]


def test_a_figure_from_elsewhere_goes_before_what_it_exceeds_and_parts_no_pair() -> None:
    own = [("turnover_ratio", 80.0, "x"), ("move", 3.0, "%"), ("move_ratio", 5.0, "x")]
    assert names(*own, ("rush_orders", 300.0, "orders")) == ["turnover_ratio", "rush_orders", "move", "move_ratio"]
    assert names(*own, ("rush_orders", 3.0, "orders")) == ["turnover_ratio", "move", "move_ratio", "rush_orders"]
    assert names(*own, ("open_interest_change", 90.0, "%"))[0] == "open_interest_change"
    assert names(*own, ("taker_buy_share", 99.0, "%"))[-1] == "taker_buy_share"


def test_what_is_about_the_data_stands_last_and_nothing_twice() -> None:
    got = names(
        ("latency", 100.0, "ms"),
        ("trust", 1.0, "share"),
        ("turnover", 1.0, "USDT"),
        ("move", 3.0, "%"),
        ("turnover", 2.0, "USDT"),
    )
    assert got == ["move", "turnover", "trust", "latency"]


def test_tickers_tell_funding_and_open_interest_while_they_are_fresh() -> None:
    witness = Witness()
    for minute in range(0, 200, 5):
        ticker = Ticker(symbol="ABC_USDT", last_price=1.0, open_interest=1000.0 + minute % 10, funding_rate=-0.0005)
        witness.observe(ticker, START_MS + minute * MINUTE_MS)
    now_ms = START_MS + 200 * MINUTE_MS
    witness.observe(Ticker(symbol="ABC_USDT", last_price=1.0, open_interest=1500.0, funding_rate=-0.0005), now_ms)
    texts = {reason.name: reason.text for reason in witness.reasons(signal(now_ms, now_ms + 250), 50.0)}
    assert texts["funding_rate"] == "funding -0.0500% per settlement"
    assert texts["open_interest_change"].startswith("open interest +49")
    assert texts["trust"] == "data straight from the stream"
    assert texts["latency"] == "seen 200 ms after the exchange's time"
    later = {reason.name for reason in witness.reasons(signal(now_ms + 10 * MINUTE_MS), 0.0)}
    assert "funding_rate" not in later
    assert "latency" not in later  # nobody said when it was received
    witness.forget("ABC_USDT")
    assert [reason.name for reason in witness.reasons(signal(now_ms), 0.0)] == ["trust"]


def test_an_older_ticker_does_not_replace_a_newer() -> None:
    witness = Witness()
    witness.observe(Ticker(symbol="ABC_USDT", last_price=1.0, funding_rate=0.002), START_MS + 1000)
    witness.observe(Ticker(symbol="ABC_USDT", last_price=1.0, funding_rate=0.001), START_MS)
    witness.observe(Ticker(symbol="ABC_USDT", last_price=1.0), START_MS + 2000)  # carries no rate
    (rate, _) = witness.reasons(signal(START_MS + 3000), 0.0)
    assert rate.value == 0.2


def test_numbers_are_written_as_people_read_them() -> None:
    assert [times_text(value) for value in (9.414, 82.34, 228.0, 999.7, 10432.1)] == [
        "9.41",
        "82.3",
        "228",
        "1,000",
        "10,432",
    ]
