"""What the score looks at is the same live and in training, and the score is what the model file says."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from markets import START_MS, candle, drawn, recorded

from perpwatch.detect.features import FEATURES, MINIMUM, FeatureBook, Floats, features_of
from perpwatch.detect.score import (
    SCORE,
    Model,
    Scorer,
    Tree,
    calibrated,
    contributions,
    raw_scores,
    read_model,
    shipped_model_text,
)
from perpwatch.model import MINUTE_MS, Candle, Finality, Timeframe, Trust


def batch(candles: Sequence[Candle]) -> Floats:
    opens = np.array([one.open_time_ms for one in candles])
    values = np.array([(one.open, one.high, one.low, one.close, one.turnover) for one in candles])
    return features_of(values, np.diff(opens, prepend=0) == MINUTE_MS)


def shipped() -> Model:
    text = shipped_model_text()
    assert text is not None
    return read_model(text)


def assert_live_equals_batch(candles: Sequence[Candle]) -> None:
    expected = batch(candles)
    book = FeatureBook()
    described = 0
    for number, one in enumerate(candles):
        book.learn(one)
        if number % 37 and number < len(candles) - 5:
            continue
        live = book.features(one.symbol)
        if live is None:
            assert np.isnan(expected[number]).all()
        else:
            described += 1
            np.testing.assert_allclose(live, expected[number], rtol=2e-4, atol=2e-4)
    assert described > 20


def test_live_features_equal_those_of_training() -> None:
    assert_live_equals_batch(drawn(2200, seed=11))


def test_live_features_equal_those_of_training_across_a_hole() -> None:
    candles = drawn(2200, seed=12)
    assert_live_equals_batch([*candles[:1500], *candles[1560:]])


@pytest.mark.parametrize(
    ("folder", "symbol"), [("candles_spot_btc_2020-02", "BRD_BTC"), ("candles_perp_usdt_2026-01", "XMR_USDT_PERP")]
)
def test_live_features_equal_those_of_training_on_recorded_markets(folder: str, symbol: str) -> None:
    assert_live_equals_batch(recorded(folder, symbol, 3000))


def test_the_minute_itself_is_no_part_of_its_own_past() -> None:
    candles = drawn(1000, seed=2)
    changed = [*candles[:-1], candle(candles[-1].open_time_ms, 200.0, 1e9, open=candles[-1].open)]
    ours, theirs = batch(candles), batch(changed)
    np.testing.assert_array_equal(ours[:-1], theirs[:-1])
    assert (ours[-1] != theirs[-1]).any()


def test_no_feature_knows_the_clock() -> None:
    candles = drawn(1000, seed=2)
    later = [msgspec.structs.replace(one, open_time_ms=one.open_time_ms + 12_345 * MINUTE_MS) for one in candles]
    np.testing.assert_array_equal(batch(candles), batch(later))


def test_a_running_minute_is_described_against_closed_ones() -> None:
    candles = drawn(1000, seed=4)
    book = FeatureBook()
    for one in candles[:-1]:
        book.learn(one)
    running = msgspec.structs.replace(candles[-1], finality=Finality.OPEN)
    live = book.features("ABC_USDT", running)
    assert live is not None
    np.testing.assert_allclose(live, batch(candles)[-1], rtol=2e-4, atol=2e-4)


def test_too_little_history_gives_no_description() -> None:
    book = FeatureBook()
    for one in drawn(MINIMUM, seed=1):
        book.learn(one)
    assert book.features("ABC_USDT") is None
    assert book.features("XYZ_USDT") is None


def test_unknown_and_odd_candles_are_not_learned() -> None:
    candles = drawn(1000, seed=6)
    book, other = FeatureBook(), FeatureBook()
    for one in candles:
        book.learn(one)
        other.learn(one)
        other.learn(one)  # sent again
        other.learn(msgspec.structs.replace(one, open_time_ms=one.open_time_ms + 1, trust=Trust.UNKNOWN))
        other.learn(msgspec.structs.replace(one, timeframe=Timeframe.Min5))
    ours, theirs = book.features("ABC_USDT"), other.features("ABC_USDT")
    assert ours is not None
    assert theirs is not None
    np.testing.assert_array_equal(ours, theirs)
    book.forget("ABC_USDT")
    assert book.features("ABC_USDT") is None


# --- The score --------------------------------------------------------------------------------------------------------


def test_the_shipped_model_finds_more_held_out_pumps_than_the_best_fixed_rule() -> None:
    model = shipped()
    budget = next(one for one in model.splits[0].budgets if one.alerts_per_day_per_750 == 10.0)
    assert (model.splits[0].name, budget.events) == ("events", 31)
    assert budget.found >= 21
    assert max(budget.loads.values()) <= 10.0
    assert len(model.data_hash) == 64
    text = shipped_model_text()
    assert text is not None
    assert len(text) < 20_000


def test_contributions_add_up_to_the_raw_score() -> None:
    model = shipped()
    rows = batch(drawn(1500, seed=9))
    row = rows[-1]
    parts = contributions(model, row)
    assert sum(part for _, part in parts) + model.intercept == pytest.approx(float(raw_scores(model, rows)[-1]))
    assert [part for _, part in parts] == sorted((part for _, part in parts), reverse=True)
    assert {name for name, _ in parts} == set(FEATURES.values())


def test_the_calibrated_score_keeps_the_order_and_stays_within_0_and_1() -> None:
    model = shipped()
    raws = np.linspace(model.quantiles[0] - 5.0, model.quantiles[-1] + 30.0, 5000)
    scores = [calibrated(model, raw) for raw in raws.tolist()]
    assert all(0.0 <= score <= 1.0 for score in scores)
    inner = [score for raw, score in zip(raws, scores, strict=True) if model.quantiles[0] < raw]
    assert inner == sorted(inner)
    assert calibrated(model, model.quantiles[100]) == pytest.approx(0.5, abs=0.01)


def test_a_pump_scores_high_and_says_why() -> None:
    scorer = Scorer(shipped())
    candles = drawn(2000, seed=3, bursts=0.0)
    scorer.warm_up("ABC_USDT", candles)
    last = candles[-1]
    pump = candle(last.close_time_ms, last.close * 1.2, 3e6, open=last.close)
    scorer.learn(pump)
    score, *parts = scorer.reasons(pump)
    assert (score.name, score.value > 0.99) == (SCORE, True)
    assert score.text.startswith("pump score 0.99: mostly volume")
    assert next(part.name for part in parts) == "score: volume"
    quiet = candle(pump.close_time_ms, pump.close, 3000.0)
    scorer.learn(quiet)
    assert scorer.reasons(quiet)[0].value < score.value
    fall = candle(quiet.close_time_ms, pump.close * 0.8, 3e6, open=pump.close)
    scorer.learn(fall)
    assert scorer.reasons(fall)[0].value < score.value


def test_a_longer_running_candle_is_scored_by_its_running_minute() -> None:
    scorer = Scorer(shipped())
    candles = drawn(2000, seed=3)
    scorer.warm_up("ABC_USDT", candles)
    minute = candle(candles[-1].close_time_ms, 130.0, 3e6, open=100.0, finality=Finality.OPEN)
    longer = msgspec.structs.replace(minute, timeframe=Timeframe.Min5, open_time_ms=START_MS)
    assert scorer.reasons(longer) == ()
    assert scorer.reasons(longer, minute) == scorer.reasons(minute)
    assert scorer.reasons(minute)[0].name == SCORE


def test_a_running_minute_is_scored_anew_when_more_is_known_of_the_past() -> None:
    candles = drawn(2000, seed=3)
    minute = candle(candles[-1].close_time_ms, 130.0, 3e6, open=100.0, finality=Finality.OPEN)
    late, whole = Scorer(shipped()), Scorer(shipped())
    late.warm_up("ABC_USDT", candles[:-1])
    before = late.reasons(minute)
    late.learn(candles[-1])
    whole.warm_up("ABC_USDT", candles)
    assert late.reasons(minute) == whole.reasons(minute) != before
    late.forget("ABC_USDT")
    assert late.reasons(minute) == ()


def test_without_a_model_there_is_no_score_and_nothing_else_changes() -> None:
    scorer = Scorer(None)
    for one in drawn(500, seed=1):
        scorer.learn(one)
        assert scorer.reasons(one) == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 0}, "trained for other features"),
        ({"features": ["volume"]}, "trained for other features"),
        ({"coefficients": [1.0]}, "incomplete"),
        ({"quantiles": [2.0, 1.0]}, "incomplete"),
        ({"mean": "x"}, "no model file"),
    ],
)
def test_a_stale_or_damaged_model_is_refused(change: dict[str, object], complaint: str) -> None:
    values = msgspec.to_builtins(shipped()) | change
    with pytest.raises(ValueError, match=complaint):
        read_model(msgspec.json.encode(values))


def test_a_forest_is_applied_tree_by_tree() -> None:
    trees = [
        Tree(
            feature=[0, -1, -1], threshold=[1.0, 0.0, 0.0], left=[1, -1, -1], right=[2, -1, -1], value=[0.3, 0.1, 0.9]
        ),
        Tree(
            feature=[6, -1, -1], threshold=[0.5, 0.0, 0.0], left=[1, -1, -1], right=[2, -1, -1], value=[0.2, 0.0, 0.6]
        ),
    ]
    model = msgspec.structs.replace(shipped(), kind="forest", trees=trees, coefficients=[])
    rows = np.zeros((3, len(FEATURES)))
    rows[1, 0], rows[2, 6] = 2.0, np.nan
    raw = raw_scores(model, rows)
    assert raw[:2].tolist() == pytest.approx([0.05, 0.45])
    assert np.isnan(raw[2])
    parts = dict(contributions(model, rows[1]))
    assert [parts["volume"], parts["move"]] == pytest.approx([0.3, -0.1])
