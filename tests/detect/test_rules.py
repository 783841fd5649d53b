"""Rules in TOML become frozen rules, or are refused with what would be right."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from perpwatch.detect.rarity import VolumeRarity
from perpwatch.detect.rules import (
    DEFAULT_RULES,
    KINDS,
    PRESETS,
    Comparison,
    Condition,
    Join,
    Rule,
    describe,
    difference,
    read_rules,
)
from perpwatch.errors import ConfigurationError
from perpwatch.model import Direction, Level, Timeframe

EVERYTHING = """
[rules.pump]
join = "at least 2"
within_minutes = 10
symbols = ["*_USDT", "!BTC_*"]
classes = ["coin"]
timeframes = ["Min1", "Min5"]
minimum_turnover = 20_000
direction = "up"
level = "strong"
schedule = ["mon-fri 13:30-20:00", "sat,sun"]
cooldown_minutes = 30
alerts_per_day = 20
rush_orders = 5

[[rules.pump.conditions]]
detector = "threshold"
turnover_ratio = 30
move = 5
times = 2
where = ["rush_orders >= 3 if known", "move_ratio > 6"]

[[rules.pump.conditions]]
detector = "rarity"

[[rules.pump.conditions]]
detector = "open_interest"
"""


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_everything_that_can_be_said_is_read() -> None:
    (rule,) = read_rules(EVERYTHING)
    assert (rule.name, rule.join, rule.at_least, rule.needed, rule.within_minutes) == (
        "pump",
        Join.AT_LEAST,
        2,
        2,
        10,
    )
    assert (rule.timeframes, rule.minimum_turnover) == ((Timeframe.Min1, Timeframe.Min5), 20_000.0)
    assert (rule.direction, rule.level, rule.cooldown_minutes) == (Direction.UP, Level.STRONG, 30.0)
    assert (rule.alerts_per_day, rule.rush_orders) == (20.0, 5)
    first = rule.conditions[0]
    assert (first.detector, first.settings, first.times) == ("threshold", {"turnover_ratio": 30, "move": 5}, 2)
    assert first.where == (Comparison("rush_orders", ">=", 3.0, True), Comparison("move_ratio", ">", 6.0, False))


def test_one_detector_needs_no_list() -> None:
    (rule,) = read_rules('[rules.quiet]\ndetector = "rarity"\nrisk = 1e-5\nmove = 6.0')
    assert rule.conditions == (Condition("rarity", {"risk": 1e-5, "move": 6.0}),)
    made = rule.conditions[0].make()
    assert isinstance(made, VolumeRarity)
    assert made.risk == 1e-5
    assert rule.conditions[0].make() is not made


def test_a_list_of_detectors_means_any_of_them() -> None:
    (rule,) = read_rules(
        '[[rules.both]]\ndetector = "breakout"\n[[rules.both]]\ndetector = "volume_ratio"\nwindow = 50'
    )
    assert (rule.join, [one.detector for one in rule.conditions]) == (Join.ANY, ["breakout", "volume_ratio"])


def test_every_detector_can_be_named_alone() -> None:
    for name in KINDS:
        text = "move = 5" if name == "threshold" else ""
        (rule,) = read_rules(f'[rules.x]\ndetector = "{name}"\n{text}')
        assert rule.conditions[0].detector == name
    assert {*PRESETS} >= {"default", "quiet", "breakout", "plain_pump"}
    assert [rule.is_tag for rule in DEFAULT_RULES] == [False, True]


def test_symbols_and_classes_decide_who_is_covered() -> None:
    (rule,) = read_rules(EVERYTHING)
    assert rule.covers("ETH_USDT", ("coin", "new"))
    assert rule.covers("ETH_USDT")  # of unknown class
    assert not rule.covers("ETH_USDT", ("stock",))
    assert not rule.covers("BTC_USDT", ("coin",))
    assert not rule.covers("ETH_USD", ("coin",))
    (rule,) = read_rules('[rules.x]\ndetector = "rarity"\nsymbols = "!BTC_*"')
    assert rule.covers("ETH_USDT")
    assert not rule.covers("BTC_USDT")


@pytest.mark.parametrize(
    ("schedule", "time", "is_on"),
    [
        ("mon-fri 13:30-20:00", "2021-04-05 13:30", True),  # a Monday
        ("mon-fri 13:30-20:00", "2021-04-05 13:29", False),
        ("mon-fri 13:30-20:00", "2021-04-05 20:00", False),
        ("mon-fri 13:30-20:00", "2021-04-04 14:00", False),
        ("sat,sun", "2021-04-04 23:59", True),
        ("sat,sun", "2021-04-05 00:00", False),
        ("fri-mon", "2021-04-05 12:00", True),
        ("22:00-06:00", "2021-04-05 23:00", True),
        ("22:00-06:00", "2021-04-05 05:59", True),
        ("22:00-06:00", "2021-04-05 06:00", False),
        ("fri 22:00-06:00", "2021-04-10 05:00", True),  # the Saturday after
        ("fri 22:00-06:00", "2021-04-09 05:00", False),
        ("00:00-24:00", "2021-04-09 05:00", True),
    ],
)
def test_hours_are_utc_and_may_go_over_midnight(schedule: str, time: str, is_on: bool) -> None:
    (rule,) = read_rules(f'[rules.x]\ndetector = "rarity"\nschedule = "{schedule}"')
    assert rule.is_on_duty(at(time)) is is_on


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rules", "is not TOML"),
        ("[other]\nx = 1", "tables named rules.NAME"),
        ("rules = 1", "tables named rules.NAME"),
        ("[rules]\nquiet = 1", "rules.quiet = 1: a table with a detector"),
        ('[rules."a b"]\ndetector = "rarity"', "a name of letters"),
        ("[rules.a]\ndirection = 'up'", r"rules\.a\.detector = None: one of rarity"),
        ("[rules.a]\ncooldown = 5", "rules.a.cooldown = 5: no such key; did you mean cooldown_minutes"),
        ('[rules.a]\ndetector = "magic"', "rules.a.detector = 'magic': one of rarity, threshold"),
        ('[rules.a]\ndetector = "breakuot"', "did you mean breakout"),
        ('[rules.a]\ndetector = "rarity"\nrisky = 1', "rules.a.risky = 1: a setting of rarity: one of risk, move"),
        ('[rules.a]\ndetector = "rarity"\nrisk = 2.0', "risk must be within"),
        ('[rules.a]\ndetector = "rarity"\nrisk = nan', "a number that is finite"),
        ('[rules.a]\ndetector = "rarity"\nmove = "much"', "rules.a"),
        ('[rules.a]\ndetector = "threshold"', "give at least one of turnover_ratio"),
        ('[rules.a]\ndetector = "volume_ratio"\nthresholds = {Min2 = 1.0}', "a number for each of Min1"),
        ('[rules.a]\ndetector = "volume_ratio"\nthresholds = 3', "a number for each of Min1"),
        ('[rules.a]\ndetector = "rarity"\ndirection = "sideways"', "up, down or any"),
        ('[rules.a]\ndetector = "rarity"\nlevel = "loud"', "one of notice, strong, extreme"),
        ('[rules.a]\ndetector = "rarity"\ntimeframes = ["Min2"]', "one of Min1, Min5, Min15, Min60"),
        ('[rules.a]\ndetector = "rarity"\ntimeframes = []', "leave the key out"),
        ('[rules.a]\ndetector = "rarity"\nschedule = "always"', "days, hours or both"),
        ('[rules.a]\ndetector = "rarity"\nschedule = "25:00-26:00"', "days, hours or both"),
        (
            '[rules.a]\ndetector = "rarity"\nalerts_per_day = 0',
            r"rules\.a\.alerts_per_day = 0: a number, at least 0\.1",
        ),
        ('[rules.a]\ndetector = "rarity"\ncooldown_minutes = true', "a number, from 1"),
        ('[rules.a]\ndetector = "rarity"\nwithin_minutes = 1.5', "a whole number"),
        ('[rules.a]\ndetector = "rarity"\ntag = 1', "true or false"),
        ('[rules.a]\ndetector = "rarity"\ntimes = 3', r"rules\.a\.within_minutes = 0: at least 1"),
        ('[rules.a]\ndetector = "rarity"\nwhere = ["move_ratio = 3"]', "as in 'move_ratio >= 6'"),
        ('[rules.a]\ndetector = "rarity"\nwhere = ["score > 0.9"]', "it never decides"),
        ('[rules.a]\ndetector = "rarity"\njoin = "at least 2"', r"'at least N' with N up to the 1 condition"),
        ('[rules.a]\ndetector = "breakout"\ndirection = "down"', "it would never fire"),
        ('[rules.a]\ndetector = "funding"\nminimum_turnover = 5', "which have no candle"),
        ("[rules.a]\nconditions = []", "a list of tables"),
        ('[rules.a]\nrisk = 1e-5\nconditions = [{detector = "rarity"}]', "stand inside its condition"),
        (
            '[rules.a]\nconditions = [{detector = "rarity"}, {detector = "funding"}]',
            r"rules\.a\.within_minutes = 0: at least 1 where a condition on candles is joined",
        ),
        ('[rules.a]\nconditions = [{detector = "rarity", x = 1}]', r"rules\.a\.conditions\[0\]\.x = 1"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        read_rules(text)


def test_a_rule_is_described_in_one_line() -> None:
    (rule,) = read_rules(EVERYTHING)
    text = describe(rule)
    assert "at least 2 of: threshold 2 times (turnover_ratio 30, move 5, rush_orders >= 3 if known" in text
    assert "within 10 min" in text
    assert "schedule mon,tue,wed,thu,fri 13:30-20:00, sat,sun 00:00-24:00" in text
    assert describe(PRESETS["default"]) == "rarity"


def test_the_difference_names_what_came_went_and_changed() -> None:
    old = (Rule("a", (Condition("rarity"),)), Rule("b", (Condition("breakout"),)), Rule("same", (Condition("rarity"),)))
    new = (
        Rule("a", (Condition("rarity", {"risk": 1e-5}),), cooldown_minutes=30.0),
        Rule("c", (Condition("build_up"),)),
        old[2],
    )
    assert difference(old, new) == [
        "+ rule c: build_up",
        "- rule b",
        "~ rule a: conditions: rarity -> rarity (risk 1e-05); cooldown_minutes: 60.0 -> 30.0",
    ]
    assert difference(new, new) == []
