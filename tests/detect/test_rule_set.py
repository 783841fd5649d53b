"""Several rules run side by side, join their conditions, and are exchanged without forgetting."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from markets import START_MS, candle, drawn

from perpwatch.detect.detector import NEVER
from perpwatch.detect.rule_set import SLICE, RuleSet
from perpwatch.detect.rules import read_rules
from perpwatch.detect.score import Scorer, read_model, shipped_model_text
from perpwatch.errors import ConfigurationError
from perpwatch.model import (
    MINUTE_MS,
    Candle,
    Contract,
    ContractUpdate,
    Direction,
    Finality,
    Level,
    Signal,
    Ticker,
    Timeframe,
    Trust,
)

PLAIN = """
[rules.plain]
detector = "threshold"
turnover_ratio = 10
move = 2
window = 20
"""


def flat(minutes: int, *, symbol: str = "ABC_USDT", start: int = 0, turnover: float = 100.0) -> list[Candle]:
    return [candle(START_MS + (start + n) * MINUTE_MS, 100.0, turnover, symbol=symbol) for n in range(minutes)]


def burst(
    minute: int, *, move: float = 5.0, turnover: float = 5000.0, symbol: str = "ABC_USDT", is_open: bool = False
) -> Candle:
    finality = Finality.OPEN if is_open else Finality.SUCCESSOR
    return candle(START_MS + minute * MINUTE_MS, 100.0 + move, turnover, symbol=symbol, open=100.0, finality=finality)


def feed(rules: RuleSet, candles: Sequence[Candle]) -> list[Signal]:
    return [signal for one in candles for signal in rules.update(one, one.close_time_ms, one.close_time_ms * 1_000_000)]


def rule_set(text: str) -> RuleSet:
    return RuleSet(read_rules(text))


def test_each_rule_speaks_for_itself() -> None:
    rules = rule_set(
        PLAIN + '[rules.down]\ndetector = "threshold"\nturnover_ratio = 10\nwindow = 20\ndirection = "down"'
    )
    assert feed(rules, flat(20)) == []
    (up,) = feed(rules, [burst(20)])
    assert (up.rule, up.detector, up.direction, up.level) == ("plain", "threshold", Direction.UP, Level.STRONG)
    fallen = feed(rules, [burst(21, move=-5.0, turnover=50_000.0)])
    assert [one.rule for one in fallen] == ["plain", "down"]


def test_symbols_out_of_scope_cost_nothing() -> None:
    rules = rule_set(PLAIN + 'symbols = ["ABC_*"]')
    assert feed(rules, [*flat(21, symbol="XYZ_USDT"), burst(21, symbol="XYZ_USDT")]) == []
    assert rules.wake_turnover("XYZ_USDT", Timeframe.Min1) == NEVER
    feed(rules, flat(20))
    assert rules.wake_turnover("ABC_USDT", Timeframe.Min1) == pytest.approx(1000.0)


def test_classes_come_from_the_contracts() -> None:
    rules = rule_set(PLAIN + 'classes = ["stock"]')
    rules.watch([Contract("ABC_USDT", "ABC", "USDT", "USDT", 1.0, zones=("coin",))])
    assert feed(rules, [*flat(20), burst(20)]) == []
    update = ContractUpdate(Contract("ABC_USDT", "ABC", "USDT", "USDT", 1.0, zones=("stock",)), START_MS)
    rules.listed(update, 0)
    assert [one.rule for one in feed(rules, [*flat(20, start=21), burst(41)])] == ["plain"]


def test_outside_its_hours_a_rule_learns_and_is_silent() -> None:
    rules = rule_set(PLAIN + 'schedule = "00:30-24:00"')  # the market begins at midnight
    assert feed(rules, [*flat(20), burst(20)]) == []
    assert len(feed(rules, [*flat(15, start=21), burst(36, turnover=90_000.0)])) == 1


def test_a_running_candle_that_was_turned_down_is_judged_again() -> None:
    rules = rule_set(PLAIN + 'where = ["move >= 8"]')
    feed(rules, flat(20))
    assert feed(rules, [burst(20, is_open=True)]) == []
    (signal,) = feed(rules, [burst(20, move=9.0, turnover=5100.0, is_open=True)])
    assert signal.is_running
    # Told once, not again for the same candle.
    assert feed(rules, [burst(20, move=9.5, turnover=5200.0, is_open=True), burst(20, move=9.5, turnover=5300.0)]) == []


def test_a_figure_that_is_not_known_fails_unless_it_is_optional() -> None:
    candles = [*flat(20), burst(20)]
    assert feed(rule_set(PLAIN + 'where = ["rush_orders >= 3"]'), candles) == []
    assert len(feed(rule_set(PLAIN + 'where = ["rush_orders >= 3 if known"]'), candles)) == 1


def test_all_conditions_must_hold_in_the_same_candle() -> None:
    rules = rule_set(
        """
        [rules.both]
        [[rules.both.conditions]]
        detector = "threshold"
        move = 4
        window = 20
        [[rules.both.conditions]]
        detector = "threshold"
        turnover_ratio = 10
        window = 20
        """
    )
    feed(rules, flat(20))
    assert feed(rules, [burst(20, turnover=100.0), burst(21, move=0.0)]) == []
    (signal,) = feed(rules, [burst(22, turnover=9000.0)])
    assert signal.rule == "both"


def test_at_least_some_conditions_within_minutes() -> None:
    text = """
        [rules.some]
        join = "at least 2"
        within_minutes = 5
        [[rules.some.conditions]]
        detector = "threshold"
        move = 4
        window = 20
        [[rules.some.conditions]]
        detector = "threshold"
        turnover_ratio = 10
        window = 20
        [[rules.some.conditions]]
        detector = "funding"
        """
    rules = rule_set(text)
    feed(rules, flat(20))
    assert feed(rules, [burst(20, turnover=100.0), *flat(4, start=21)]) == []
    (signal,) = feed(rules, [burst(25, move=0.0)])  # the move was five minutes ago, to the second
    assert {reason.name for reason in signal.reasons} >= {"move", "turnover_ratio"}
    assert feed(rules, [burst(26, turnover=100.0), *flat(6, start=27), burst(33, move=0.0, turnover=50_000.0)]) == []


def test_a_condition_that_must_hold_several_times() -> None:
    rules = rule_set('[rules.x]\nwithin_minutes = 10\ndetector = "threshold"\nmove = 4\nwindow = 20\ntimes = 3')
    feed(rules, flat(20))
    told = [bool(feed(rules, [burst(minute, turnover=100.0)])) for minute in (20, 21, 25, 26, 27, 28)]
    assert told == [False, False, True, False, False, True]


def test_tickers_join_candles() -> None:
    rules = rule_set(
        """
        [rules.squeeze]
        within_minutes = 10
        [[rules.squeeze.conditions]]
        detector = "threshold"
        turnover_ratio = 10
        window = 20
        [[rules.squeeze.conditions]]
        detector = "funding"
        """
    )
    feed(rules, flat(20))
    now_ms = START_MS + 20 * MINUTE_MS
    assert rules.observe(Ticker(symbol="ABC_USDT", last_price=100.0, funding_rate=0.0001), now_ms, 0) == []
    assert rules.observe(Ticker(symbol="ABC_USDT", last_price=100.0, funding_rate=0.005), now_ms + 1000, 0) == []
    (signal,) = feed(rules, [burst(20)])
    reasons = {reason.name: reason for reason in signal.reasons}
    assert reasons["funding_rate"].value == pytest.approx(0.5)
    assert reasons["funding_change"].unit == "%"
    assert list(reasons)[-2:] == ["trust", "latency"]


def test_new_contracts_are_told_by_the_rule_that_asks() -> None:
    rules = rule_set('[rules.fresh]\ndetector = "new_listing"\nsymbols = "*_USDT"')
    rules.watch([Contract("OLD_USDT", "OLD", "USDT", "USDT", 1.0)])
    old = ContractUpdate(Contract("OLD_USDT", "OLD", "USDT", "USDT", 1.0), START_MS)
    new = ContractUpdate(Contract("NEW_USDT", "NEW", "USDT", "USDT", 1.0), START_MS)
    assert rules.listed(old, 0) == []
    assert [one.rule for one in rules.listed(new, 0)] == ["fresh"]


def test_minimum_turnover_is_that_of_the_candle() -> None:
    rules = rule_set(PLAIN + "minimum_turnover = 6000")
    feed(rules, flat(20))
    assert rules.wake_turnover("ABC_USDT", Timeframe.Min1) == 6000.0
    assert feed(rules, [burst(20)]) == []
    assert len(feed(rules, [burst(21, turnover=6001.0)])) == 1


# --- Exchange while running -------------------------------------------------------------------------------------------


def test_a_changed_limit_keeps_what_was_learned() -> None:
    rules = rule_set(PLAIN)
    feed(rules, flat(20))
    lines = rules.swap(read_rules(PLAIN.replace("move = 2", "move = 4")))
    assert lines[0].startswith("~ rule plain: conditions: threshold (turnover_ratio 10, move 2")
    assert lines[1] == "= 1 detectors kept what they had learned, 0 begin anew"
    assert len(feed(rules, [burst(20)])) == 1


def test_another_window_begins_anew_unless_history_is_at_hand() -> None:
    changed = read_rules(PLAIN.replace("window = 20", "window = 10"))
    rules = rule_set(PLAIN)
    feed(rules, flat(20))
    assert rules.swap(changed)[-1] == "= 0 detectors kept what they had learned, 1 begin anew"
    assert feed(rules, [burst(20)]) == []
    rules = rule_set(PLAIN)
    rules.watch([Contract("ABC_USDT", "ABC", "USDT", "USDT", 1.0)])
    feed(rules, flat(20))
    rules.swap(changed)
    rules.teach("ABC_USDT", lambda symbol, timeframe: flat(20) if timeframe is Timeframe.Min1 else [])
    assert len(feed(rules, [burst(20)])) == 1


def test_rules_that_ask_the_same_share_and_part_with_their_own_knowledge() -> None:
    text = "[rules.a]\ndetector = 'rarity'\n[rules.b]\ndetector = 'rarity'\nsymbols = 'ABC_*'\n"
    rules = rule_set(text)
    candles = drawn(2000, seed=3)
    feed(rules, candles)
    assert len(rules.state()) < 1.2 * len(rule_set_after(candles).state())
    rules.swap(read_rules(text + "risk = 1e-3\n"))
    assert (rules.risk("a"), rules.risk("b")) == (1e-4, 1e-3)
    last = candles[-1]
    jump = candle(last.close_time_ms, last.close * 1.1, 1e8, open=last.close)
    signals = feed(rules, [jump])
    assert [one.rule for one in signals] == ["a", "b"]
    assert not any(one.is_learning for one in signals)


def rule_set_after(candles: Sequence[Candle]) -> RuleSet:
    rules = RuleSet()
    feed(rules, candles)
    return rules


def test_signals_after_an_exchange_of_equal_rules_are_those_without_it() -> None:
    candles = drawn(4000, seed=5)
    untouched, exchanged = RuleSet(), RuleSet()
    expected = feed(untouched, candles)
    assert len(expected) >= 3
    got: list[Signal] = []
    for start in range(0, 4000, 500):
        got += feed(exchanged, candles[start : start + 500])
        assert exchanged.swap(exchanged.rules) == ["= 2 detectors kept what they had learned, 0 begin anew"]
    assert got == expected


def test_rules_that_cannot_be_used_change_nothing() -> None:
    rules = rule_set(PLAIN)
    feed(rules, flat(20))
    for wrong in ((), rules.rules * 2):
        with pytest.raises(ConfigurationError, match="a name of its own"):
            rules.swap(wrong)
    assert len(feed(rules, [burst(20)])) == 1


def test_a_budget_turns_the_risk_of_its_rule_alone_and_for_good() -> None:
    text = "[rules.a]\ndetector = 'rarity'\nalerts_per_day = 10\n[rules.b]\ndetector = 'rarity'\n"
    rules = rule_set(text)
    rules.set_risk("a", 1e-6)
    assert (rules.risk("a"), rules.risk("b")) == (1e-6, 1e-4)
    rules.swap(read_rules(text + "cooldown_minutes = 30"))
    assert (rules.risk("a"), rules.risk("b")) == (1e-6, 1e-4)


def test_a_warm_up_in_slices_between_which_others_are_judged_is_the_same_warm_up() -> None:
    text = shipped_model_text()
    assert text is not None
    past, other = drawn(2600, seed=8), drawn(30, seed=9, symbol="XYZ_USDT")
    rules, sliced = RuleSet(scorer=Scorer(read_model(text))), RuleSet(scorer=Scorer(read_model(text)))
    rules.warm_up("ABC_USDT", Timeframe.Min1, past[:2500])
    feed(rules, other)
    waiting = iter(other)
    slices = 0
    for _ in sliced.warming("ABC_USDT", Timeframe.Min1, past[:2500]):
        feed(sliced, [next(waiting)])
        slices += 1
    feed(sliced, list(waiting))
    assert slices >= 2 * 2500 / SLICE
    now = [*past[2500:], burst(2600, move=past[-1].close * 0.3, turnover=1e7)]
    assert feed(sliced, now) == feed(rules, now)
    assert sliced.state() == rules.state()


def test_a_restart_continues_where_it_was() -> None:
    candles = drawn(3000, seed=8)
    rules = RuleSet()
    feed(rules, candles[:2000])
    again = RuleSet()
    assert again.restore(rules.state()) == 1
    told = [one for one in feed(rules, candles[2000:]) if one.rule == "default"]
    assert [one for one in feed(again, candles[2000:]) if one.rule == "default"] == told
    with pytest.raises(ValueError, match="cannot be read"):
        again.restore(b"nonsense")


# --- Why --------------------------------------------------------------------------------------------------------------


def test_reasons_stand_in_order_of_contribution_and_end_with_trust_and_latency() -> None:
    text = shipped_model_text()
    assert text is not None
    rules = RuleSet(scorer=Scorer(read_model(text)))
    rules.clock_offset_ms = 40.0
    feed(rules, drawn(2000, seed=3, bursts=0.0))
    last_ms = START_MS + 2000 * MINUTE_MS
    rules.observe(Ticker(symbol="ABC_USDT", last_price=100.0, funding_rate=0.0003), last_ms, 0)
    jump = candle(last_ms, 130.0, 3e6, open=100.0, trust=Trust.VERIFIED)
    signals = rules.update(jump, jump.close_time_ms, (jump.close_time_ms + 140) * 1_000_000)
    signal = next(one for one in signals if one.rule == "default")
    names = [reason.name for reason in signal.reasons]
    assert names.index("move") < names.index("move_ratio")
    assert names[-4:] == ["turnover", "mean_turnover", "trust", "latency"]
    texts = {reason.name: reason.text for reason in signal.reasons}
    assert texts["latency"] == "seen 100 ms after the exchange's time"
    assert texts["funding_rate"] == "funding +0.0300% per settlement"
    assert texts["score"].startswith("pump score 0.")
    assert texts["rarity"].startswith("the rarest minute in")
    assert len(set(names)) == len(names)
