"""The default detector: equal to a slow batch reference, silent where it must be, and the same after a restart."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import START_MS, candle, drawn, recorded

from perpwatch.detect.detector import NEVER
from perpwatch.detect.rarity import VolumeRarity
from perpwatch.model import MINUTE_MS, Candle, Direction, Finality, Level, Signal, Timeframe, Trust


def feed(detector: VolumeRarity, candles: Sequence[Candle]) -> list[Signal | None]:
    return [detector.update(one, one.close_time_ms, 0) for one in candles]


def numbers(signal: Signal) -> dict[str, float]:
    return {reason.name: reason.value for reason in signal.reasons}


# --- The slow reference -----------------------------------------------------------------------------------------------


class Reference:
    """The detector's definition, spelled out: every figure is computed from whole lists of past candles."""

    def __init__(
        self, candles: Sequence[Candle], day: int, base: int, tail: int, minimum: int, quantile: float
    ) -> None:
        self.candles = candles
        turnovers = np.array([one.turnover for one in candles], dtype=np.float32).astype(np.float64)
        closes = np.array([one.close for one in candles])
        self.moves = np.abs(np.concatenate([[closes[0] / candles[0].open - 1.0], closes[1:] / closes[:-1] - 1.0]))
        self.means = [float(np.mean(turnovers[max(0, t - day) : t])) if t else 0.0 for t in range(len(candles))]
        self.ratios = [
            one.turnover / mean if mean > 0 else math.nan for one, mean in zip(candles, self.means, strict=True)
        ]
        self.values = [math.log1p(ratio) if t >= base else None for t, ratio in enumerate(self.ratios)]
        self.tail, self.minimum, self.quantile = tail, minimum, quantile
        minutes = candles[0].timeframe.minutes
        phase = zlib.crc32(candles[0].symbol.encode()) % 240
        self.refits = []
        bucket_before = -1
        learned = 0
        for t, one in enumerate(candles):
            if self.values[t] is None:
                continue
            learned += 1
            bucket = (one.open_time_ms // MINUTE_MS + phase) // 240
            if (bucket != bucket_before or learned == minimum) and learned >= minimum:
                self.refits.append(t)
            bucket_before = bucket
        self.minutes = minutes

    def rarity(self, t: int) -> float | None:
        """P(X > x) per minute of candle t, from the candles before it; None while there are too few."""
        refit = max((r for r in self.refits if r < t), default=None)
        value = self.values[t]
        if refit is None or value is None:
            return None
        window = [float(np.float32(x)) for x in self.values[: refit + 1] if x is not None][-self.tail :]
        later = [x for x in self.values[refit + 1 : t] if x is not None]
        threshold = sorted(window)[math.ceil(self.quantile * len(window)) - 1]
        excesses = np.array([x - threshold for x in (*window, *later) if x > threshold])
        if value <= threshold:
            return 1.0 / self.minutes
        ratio = min(float(excesses.mean() ** 2 / excesses.var()), 2.0)
        gamma = 0.5 * (1.0 - ratio) + 1.0 / len(excesses)
        sigma = 0.5 * float(excesses.mean()) * (1.0 + ratio)
        base = 1.0 + gamma * (value - threshold) / sigma
        share = len(excesses) / (len(window) + len(later))
        return (share * base ** (-1.0 / gamma) if base > 0.0 else 0.0) / self.minutes

    def signal(self, t: int, risk: float, move: float) -> dict[str, float] | None:
        if t == 0:
            return None
        usual = max(float(np.mean(self.moves[max(0, t - 240) : t])), 0.0002)
        rarity = self.rarity(t)
        if rarity is None or rarity >= risk or self.moves[t] <= move * usual:
            return None
        return {"rarity": rarity, "turnover_ratio": self.ratios[t], "move_ratio": self.moves[t] / usual}


@pytest.mark.parametrize(
    ("folder", "symbol", "timeframe", "size"),
    [
        ("candles_spot_btc_2020-02", "BRD_BTC", Timeframe.Min1, 3000),
        ("candles_perp_usdt_2026-01", "ZEC_USDT_PERP", Timeframe.Min1, 3000),
        ("candles_perp_usdt_5m_2023-07", "XRP_USDT_PERP", Timeframe.Min5, 2500),
    ],
)
def test_numbers_equal_the_slow_reference_at_every_prefix_of_recorded_candles(
    folder: str, symbol: str, timeframe: Timeframe, size: int
) -> None:
    candles = recorded(folder, symbol, size, timeframe=timeframe)
    # An outage would silence the detector; the reference knows no guards.
    holes = [t for t in range(1, size) if candles[t].open_time_ms != candles[t - 1].close_time_ms]
    candles = candles[max(holes, default=0) :]
    _compare(candles)


def test_numbers_equal_the_slow_reference_at_every_prefix_of_drawn_candles() -> None:
    _compare(drawn(3000, seed=11))
    _compare(drawn(1500, seed=12, timeframe=Timeframe.Min5, bursts=0.02))


def _compare(candles: Sequence[Candle]) -> None:
    risk, move = 5e-3, 1.0
    if candles[0].timeframe is Timeframe.Min1:
        reference = Reference(candles, day=1440, base=360, tail=7200, minimum=1000, quantile=0.98)
    else:
        reference = Reference(candles, day=288, base=72, tail=1440, minimum=200, quantile=0.95)
    signals = feed(VolumeRarity(risk=risk, move=move, has_slot_factors=False), candles)
    found = 0
    for t, signal in enumerate(signals):
        expected = reference.signal(t, risk, move)
        if signal is not None and signal.is_learning:
            assert expected is None
            continue
        assert (signal is None) == (expected is None), f"candle {t}"
        if signal is None or expected is None:
            continue
        found += 1
        told = numbers(signal)
        assert told["rarity"] == pytest.approx(expected["rarity"], rel=1e-4, abs=1e-12)
        assert told["turnover_ratio"] == pytest.approx(expected["turnover_ratio"], rel=1e-6)
        assert told["move_ratio"] == pytest.approx(expected["move_ratio"], rel=1e-6)
    assert found >= 5


# --- What it says -----------------------------------------------------------------------------------------------------


@pytest.fixture(name="calm")
def calm_market() -> tuple[VolumeRarity, int, float]:
    """A detector after two days without bursts, the next candle's open time and the last close."""
    detector = VolumeRarity()
    candles = drawn(2880, seed=1, bursts=0.0)
    feed(detector, candles)
    return detector, candles[-1].close_time_ms, candles[-1].close


Calm = tuple[VolumeRarity, int, float]


def test_rare_volume_with_a_large_move_is_extreme(calm: Calm) -> None:
    detector, now_ms, price = calm
    signal = detector.update(candle(now_ms, price * 0.95, 1e7, open=price), now_ms + MINUTE_MS, 5)
    assert signal is not None
    assert (signal.direction, signal.level, signal.is_running) == (Direction.DOWN, Level.EXTREME, False)
    assert (signal.event_time_ms, signal.received_time_ns) == (now_ms + MINUTE_MS, 5)
    assert numbers(signal)["move"] == pytest.approx(-5.0)
    assert any("× its usual move" in reason.text for reason in signal.reasons)
    assert any("the rarest minute in" in reason.text for reason in signal.reasons)


def test_rare_volume_without_a_move_is_nothing(calm: Calm) -> None:
    detector, now_ms, price = calm
    assert detector.update(candle(now_ms, price, 1e7, open=price), now_ms, 0) is None


def test_a_move_without_rare_volume_is_nothing(calm: Calm) -> None:
    detector, now_ms, price = calm
    assert detector.update(candle(now_ms, price * 1.05, 5000.0, open=price), now_ms, 0) is None


@pytest.mark.parametrize(("rise", "turnover", "first"), [(1.01, 1e8, "turnover_ratio"), (3.0, 1e6, "move")])
def test_the_wider_margin_comes_first(calm: Calm, rise: float, turnover: float, first: str) -> None:
    detector, now_ms, price = calm
    signal = detector.update(candle(now_ms, price * rise, turnover, open=price), now_ms, 0)
    assert signal is not None
    assert signal.reasons[0].name == first


def test_a_running_candle_speaks_again_only_when_it_has_doubled(calm: Calm) -> None:
    detector, now_ms, price = calm

    def push(turnover: float) -> Signal | None:
        one = candle(now_ms, price * 1.05, turnover, open=price, finality=Finality.OPEN)
        return detector.update(one, now_ms + 1, 0)

    first = push(1e6)
    assert first is not None
    assert first.is_running
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) == pytest.approx(2e6)
    assert push(1.9e6) is None
    assert push(2.1e6) is not None
    assert detector.update(candle(now_ms, price * 1.05, 2.2e6, open=price), now_ms, 0) is None


def test_a_running_candle_teaches_nothing(calm: Calm) -> None:
    detector, now_ms, price = calm
    before = detector.state()
    detector.update(candle(now_ms, price, 1e3, open=price, finality=Finality.OPEN), now_ms, 0)
    assert detector.state() == before


def test_a_running_candle_that_is_ahead_of_the_closed_ones_breaks_no_chain(calm: Calm) -> None:
    detector, now_ms, price = calm
    before = detector.state()
    for ahead in (1, 2, 30):
        running = candle(now_ms + ahead * MINUTE_MS, price, 1e3, open=price, finality=Finality.OPEN)
        detector.update(running, now_ms, 0)
    assert detector.state() == before
    signal = detector.update(candle(now_ms, price * 1.05, 1e7, open=price * 1.05), now_ms, 0)
    assert signal is not None  # measured from the close before it


def test_the_risk_moves_the_threshold(calm: Calm) -> None:
    detector, _, _ = calm
    at_default = detector.wake_turnover("ABC_USDT", Timeframe.Min1)
    detector.risk = 1e-6
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) > at_default
    detector.risk = 1e-3
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) < at_default
    with pytest.raises(ValueError, match="risk must be within"):
        detector.risk = 0.5


def test_an_hour_is_judged_by_its_ratio() -> None:
    detector = VolumeRarity()
    candles = drawn(48, seed=2, timeframe=Timeframe.Min60, bursts=0.0)
    feed(detector, candles)
    now_ms, price = candles[-1].close_time_ms, candles[-1].close
    mean = float(np.mean([one.turnover for one in candles[-24:]]))
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min60) == pytest.approx(8.0 * mean)
    hour = candle(now_ms, price * 1.2, 20.0 * mean, open=price, timeframe=Timeframe.Min60)
    signal = detector.update(hour, now_ms, 0)
    assert signal is not None
    assert (signal.level, signal.is_learning) == (Level.STRONG, False)


def test_a_short_history_is_marked_as_learning() -> None:
    detector = VolumeRarity()
    candles = drawn(500, seed=2, bursts=0.0)
    feed(detector, candles)
    now_ms, price = candles[-1].close_time_ms, candles[-1].close
    signal = detector.update(candle(now_ms, price * 1.05, 1e6, open=price), now_ms, 0)
    assert signal is not None
    assert (signal.level, signal.is_learning) == (Level.NOTICE, True)


# --- Guards -----------------------------------------------------------------------------------------------------------


def test_the_first_hour_of_a_listing_is_only_learned() -> None:
    detector = VolumeRarity()
    feed(detector, drawn(59, seed=3, bursts=0.0))
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) == NEVER
    burst = candle(START_MS + 59 * MINUTE_MS, 200.0, 1e9, open=100.0)
    assert detector.update(burst, 0, 0) is None


def test_after_a_loss_the_symbol_is_silent_as_long_as_the_loss_but_half_an_hour_at_most(calm: Calm) -> None:
    _, now_ms, price = calm
    for loss, silent in ((3, 0), (4, 4), (20, 20), (150, 30)):
        detector = VolumeRarity()
        feed(detector, drawn(2880, seed=1, bursts=0.0))
        back_ms = now_ms + loss * MINUTE_MS
        first_heard = None
        for minute in range(40):
            at_ms = back_ms + minute * MINUTE_MS
            one = candle(at_ms, price * 1.2, 1e7 * 3.0**minute, open=price, finality=Finality.OPEN)
            if detector.update(one, at_ms, 0) is not None:
                first_heard = minute
                break
            # The candle closes quiet, so that the next one continues the chain.
            detector.update(candle(at_ms, price, 3000.0, open=price), at_ms, 0)
        assert first_heard == silent, f"after {loss} lost minutes"


def test_a_lost_minute_does_not_silence_the_symbol_through_its_hour_candle() -> None:
    detector = VolumeRarity()
    feed(detector, drawn(2880, seed=1, bursts=0.0))
    feed(detector, drawn(46, seed=4, timeframe=Timeframe.Min60, bursts=0.0))
    now_ms = START_MS + 2880 * MINUTE_MS
    hour = candle(now_ms - 3_600_000, 100.0, 1.0, timeframe=Timeframe.Min60, finality=Finality.OPEN)
    detector.update(hour, now_ms, 0)  # the hour before it is missing
    signal = detector.update(candle(now_ms, 200.0, 1e7, open=100.0), now_ms, 0)
    assert signal is not None


def test_a_return_never_spans_a_loss(calm: Calm) -> None:
    detector, now_ms, price = calm
    # Two minutes are lost, the price has gone up meanwhile, and the next candle itself is flat.
    after = candle(now_ms + 2 * MINUTE_MS, price * 1.5, 1e7, open=price * 1.5)
    assert detector.update(after, now_ms, 0) is None


def test_a_return_never_spans_a_reset(calm: Calm) -> None:
    detector, now_ms, price = calm
    detector.reset("ABC_USDT")
    assert detector.update(candle(now_ms, price * 1.5, 1e7, open=price * 1.5), now_ms, 0) is None


@pytest.mark.parametrize(
    "flaw",
    [
        {"missing_minutes": 1},
        {"trust": Trust.UNKNOWN},
        {"turnover": math.nan},
        {"turnover": math.inf},
        {"turnover": -1.0},
        {"close": math.nan},
        {"close": 0.0},
    ],
)
def test_a_candle_that_is_not_known_is_neither_judged_nor_learned(calm: Calm, flaw: dict[str, float]) -> None:
    detector, now_ms, price = calm
    before = detector.state()
    one = msgspec.structs.replace(candle(now_ms, price * 1.5, 1e7, open=price), **flaw)
    assert detector.update(one, now_ms, 0) is None
    assert detector.state() == before


def test_a_candle_sent_again_or_out_of_order_changes_nothing(calm: Calm) -> None:
    detector, now_ms, price = calm
    before = detector.state()
    for minutes in (1, 2, 100):
        late = candle(now_ms - minutes * MINUTE_MS, price * 1.5, 1e7, open=price)
        assert detector.update(late, now_ms, 0) is None
    assert detector.state() == before


def test_a_symbol_in_which_nobody_trades_stays_silent() -> None:
    detector = VolumeRarity()
    for minute in range(1500):
        detector.update(candle(START_MS + minute * MINUTE_MS, 1.0, 0.0), 0, 0)
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) == NEVER
    assert detector.update(candle(START_MS + 1500 * MINUTE_MS, 2.0, 1e6, open=1.0), 0, 0) is None


def test_a_forgotten_symbol_starts_anew(calm: Calm) -> None:
    detector, _, _ = calm
    detector.forget("ABC_USDT")
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min1) == NEVER


def test_a_timeframe_that_is_not_analysed_is_ignored() -> None:
    detector = VolumeRarity()
    assert feed(detector, drawn(100, seed=3, timeframe=Timeframe.Min30)) == [None] * 100
    assert detector.wake_turnover("ABC_USDT", Timeframe.Min30) == NEVER


# --- Properties -------------------------------------------------------------------------------------------------------


def messy(size: int, seed: int) -> list[Candle]:
    """Drawn candles of two symbols and two timeframes with losses, repeats, unknown minutes and running candles."""
    random = np.random.default_rng(seed)
    candles: list[Candle] = []
    for timeframe, share in ((Timeframe.Min1, 1), (Timeframe.Min5, 5)):
        for symbol in ("ABC_USDT", "XYZ_USDT"):
            for one in drawn(size // share, seed + len(symbol) + share, symbol=symbol, timeframe=timeframe):
                dice = random.random()
                if dice < 0.01:
                    continue
                if dice < 0.02:
                    candles.append(msgspec.structs.replace(one, missing_minutes=1))
                    continue
                if dice < 0.3:
                    part = float(random.random())
                    candles.append(msgspec.structs.replace(one, turnover=one.turnover * part, finality=Finality.OPEN))
                candles.append(one)
                if dice > 0.99:
                    candles.append(one)
    candles.sort(
        key=lambda one: one.open_time_ms + (0 if one.finality is Finality.OPEN else one.timeframe.milliseconds)
    )
    return candles


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0.0, 1.0))
def test_a_detector_saved_and_restored_after_any_prefix_continues_identically(seed: int, cut: float) -> None:
    candles = messy(1600, seed)
    split = int(cut * len(candles))
    detector = VolumeRarity(risk=1e-2, move=1.0)
    feed(detector, candles[:split])
    restored = VolumeRarity(risk=1e-2, move=1.0)
    restored.restore(detector.state())
    assert feed(restored, candles[split:]) == feed(detector, candles[split:])
    assert restored.state() == detector.state()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0.0, 1.0))
def test_a_past_that_is_taken_in_two_parts_is_the_same_past(seed: int, cut: float) -> None:
    minutes = [one for one in messy(1600, seed) if one.timeframe is Timeframe.Min1]
    split = int(cut * len(minutes))
    whole, parts = VolumeRarity(), VolumeRarity()
    whole.warm_up("ABC_USDT", Timeframe.Min1, minutes)
    parts.warm_up("ABC_USDT", Timeframe.Min1, minutes[:split])
    parts.learn("ABC_USDT", Timeframe.Min1, minutes[split:])
    assert parts.state() == whole.state()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_signal_comes_below_the_wake_turnover(seed: int) -> None:
    detector = VolumeRarity(risk=1e-2, move=1.0)
    for one in messy(1300, seed):
        wake = detector.wake_turnover(one.symbol, one.timeframe)
        signal = detector.update(one, 0, 0)
        assert signal is None or one.turnover >= wake


def test_history_teaches_the_same_as_living_through_it() -> None:
    candles = drawn(2000, seed=9)
    lived, warmed = VolumeRarity(), VolumeRarity()
    feed(lived, candles[:1900])
    warmed.warm_up("ABC_USDT", Timeframe.Min1, candles[:1900])
    assert feed(warmed, candles[1900:]) == feed(lived, candles[1900:])


def test_history_that_fills_a_loss_ends_the_silence() -> None:
    candles = drawn(2000, seed=9, bursts=0.0)
    detector = VolumeRarity()
    feed(detector, candles[:1500] + candles[1600:])
    now_ms, price = candles[-1].close_time_ms, candles[-1].close
    detector.warm_up("ABC_USDT", Timeframe.Min1, candles)
    assert detector.update(candle(now_ms, price * 1.5, 1e7, open=price), now_ms, 0) is not None


def test_a_damaged_or_older_state_is_refused() -> None:
    detector = VolumeRarity()
    with pytest.raises(ValueError, match="cannot be read"):
        detector.restore(b"\x00nonsense")
    state = msgspec.msgpack.decode(detector.state())
    state["version"] = 0
    with pytest.raises(ValueError, match="version 0"):
        detector.restore(msgspec.msgpack.encode(state))


def test_the_memory_of_a_symbol_stays_small() -> None:
    detector = VolumeRarity()
    for timeframe in (Timeframe.Min1, Timeframe.Min5, Timeframe.Min15, Timeframe.Min60):
        detector.warm_up("ABC_USDT", timeframe, drawn(8 * 1440 // timeframe.minutes + 100, seed=1, timeframe=timeframe))
    assert len(detector.state()) < 64_000


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="risk"):
        VolumeRarity(risk=0.0)
    with pytest.raises(ValueError, match="move"):
        VolumeRarity(move=0.0)
