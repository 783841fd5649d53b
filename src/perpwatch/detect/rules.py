"""The language in which a user says what is worth knowing: TOML in, frozen rules out.

    [rules.quiet]                      # one detector, its settings beside it
    detector = "rarity"
    risk = 1e-5
    move = 6.0

    [rules.pump]
    join = "all"                       # all, any, or "at least 2" of the conditions ...
    within_minutes = 10                # ... within so many minutes; without it, in the same candle
    symbols = ["*_USDT", "!BTC_*"]     # patterns; "!" excludes
    classes = ["coin"]                 # coin, stock, index, metal, commodity, fx, other, or the exchange's zones
    timeframes = ["Min1", "Min5"]
    minimum_turnover = 20_000          # quote coin, in the candle
    direction = "up"
    level = "strong"                   # at least
    schedule = ["mon-fri 13:30-20:00"] # UTC
    cooldown_minutes = 30
    alerts_per_day = 20

    [[rules.pump.conditions]]
    detector = "threshold"
    turnover_ratio = 30
    move = 5
    where = ["rush_orders >= 3 if known"]

    [[rules.pump.conditions]]
    detector = "open_interest"

Whatever is wrong is refused with the key, the value and what would be right. ``rule_set`` runs the rules.
"""

from __future__ import annotations

import difflib
import enum
import fnmatch
import inspect
import math
import operator
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from perpwatch.detect.breakout import Breakout
from perpwatch.detect.build_up import BuildUp
from perpwatch.detect.detector import Detector
from perpwatch.detect.funding import FundingJump
from perpwatch.detect.interest import OpenInterestJump
from perpwatch.detect.listing import NewListing
from perpwatch.detect.price_gap import PriceGap
from perpwatch.detect.rarity import VolumeRarity
from perpwatch.detect.threshold import Threshold
from perpwatch.detect.ticker_detector import TickerDetector
from perpwatch.detect.volume_ratio import VolumeRatio
from perpwatch.errors import ConfigurationError
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Direction, Level, Signal, Timeframe

Source = Detector | TickerDetector | NewListing

_Word = TypeVar("_Word", bound=enum.StrEnum)


class Kind(msgspec.Struct, frozen=True):
    """A detector as rules know it."""

    make: Callable[..., Source]
    learns: frozenset[str] = frozenset()  # settings that decide what it learns; the others are dials
    is_on_candles: bool = True


#: By the name their signals carry.
KINDS: Mapping[str, Kind] = {
    "rarity": Kind(VolumeRarity, frozenset({"has_slot_factors"})),
    "threshold": Kind(Threshold, frozenset({"window"})),
    "volume_ratio": Kind(VolumeRatio, frozenset({"window", "thresholds"})),
    "breakout": Kind(Breakout, frozenset({"hours"})),
    "build_up": Kind(BuildUp, frozenset({"drift"})),
    "open_interest": Kind(OpenInterestJump, is_on_candles=False),
    "funding": Kind(FundingJump, is_on_candles=False),
    "price_gap": Kind(PriceGap, is_on_candles=False),
    "new_listing": Kind(NewListing, is_on_candles=False),
}


class Join(enum.StrEnum):
    ALL = "all"
    ANY = "any"
    AT_LEAST = "at least"


class Comparison(msgspec.Struct, frozen=True):
    """One figure of a signal against a number, as in ``rush_orders >= 3 if known``."""

    figure: str
    sign: str
    number: float
    is_optional: bool = False  # holds where the figure is not known

    def holds(self, figures: Mapping[str, float]) -> bool:
        value = figures.get(self.figure)
        return self.is_optional if value is None else _SIGNS[self.sign](value, self.number)

    def __str__(self) -> str:
        return f"{self.figure} {self.sign} {self.number:g}{' if known' if self.is_optional else ''}"


_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class Condition(msgspec.Struct, frozen=True):
    """A detector with its settings, and which of its signals count."""

    detector: str
    settings: dict[str, Any] = {}
    where: tuple[Comparison, ...] = ()
    times: int = 1  # in so many candles within the rule's minutes

    @property
    def kind(self) -> Kind:
        return KINDS[self.detector]

    def make(self) -> Source:
        """A fresh detector.

        Raises:
            TypeError, ValueError: it refuses the settings.
        """
        settings = dict(self.settings)
        if "thresholds" in settings:
            settings["thresholds"] = {Timeframe(name): value for name, value in settings["thresholds"].items()}
        return self.kind.make(**settings)

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in self.settings.items()]
        parts += [str(one) for one in self.where]
        times = f" {self.times} times" if self.times > 1 else ""
        return f"{self.detector}{times}" + (f" ({', '.join(parts)})" if parts else "")


class Hours(msgspec.Struct, frozen=True):
    """A span of each of some days of the week, UTC; one that ends before it begins goes over midnight."""

    days: tuple[int, ...]  # 0 is Monday; the day on which it begins
    start: int  # minute of the day
    end: int  # exclusive

    def contains(self, time_ms: int) -> bool:
        minutes = time_ms // MINUTE_MS
        # 1 January 1970 was a Thursday.
        day, minute = (minutes // 1440 + 3) % 7, minutes % 1440
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


class Rule(msgspec.Struct, frozen=True):
    """What a user wants to be told; the defaults say nothing against anything."""

    name: str
    conditions: tuple[Condition, ...]
    join: Join = Join.ALL
    at_least: int = 0  # conditions, where they are joined so
    within_minutes: int = 0  # 0 for the same candle
    symbols: tuple[str, ...] = ("*",)
    classes: tuple[str, ...] = ()  # any of them; empty for all
    timeframes: tuple[Timeframe, ...] = ()  # empty for all
    minimum_turnover: float = 0.0  # quote coin, in the candle
    direction: Direction | None = None
    level: Level = Level.NOTICE
    schedule: tuple[Hours, ...] = ()  # empty for always
    cooldown_minutes: float = 60.0
    alerts_per_day: float | None = None
    is_tag: bool = False  # shown beside other alerts, not sent
    rush_orders: int = 3  # that a running candle must have, where trades are subscribed

    @property
    def needed(self) -> int:
        """Conditions that must hold."""
        return {Join.ALL: len(self.conditions), Join.ANY: 1, Join.AT_LEAST: self.at_least}[self.join]

    def covers(self, symbol: str, classes: Sequence[str] = ()) -> bool:
        """Whether a symbol is in scope; a symbol without classes is in any class."""
        wanted = [pattern for pattern in self.symbols if not pattern.startswith("!")] or ["*"]
        return (
            any(fnmatch.fnmatchcase(symbol, pattern) for pattern in wanted)
            and not any(fnmatch.fnmatchcase(symbol, pattern[1:]) for pattern in self.symbols if pattern[0] == "!")
            and (not self.classes or not classes or not set(self.classes).isdisjoint(classes))
        )

    def is_on_duty(self, time_ms: int) -> bool:
        return not self.schedule or any(hours.contains(time_ms) for hours in self.schedule)

    def accepts(self, condition: Condition, signal: Signal, turnover: float) -> bool:
        """Whether a signal of one of its conditions counts, scope and hours apart."""
        return (
            turnover >= self.minimum_turnover
            and (self.direction is None or signal.direction in (self.direction, Direction.FLAT))
            and signal.level.rank >= self.level.rank
            and (not condition.where or _all_hold(condition.where, signal))
        )


def _all_hold(where: Sequence[Comparison], signal: Signal) -> bool:
    figures = {reason.name: reason.value for reason in signal.reasons}
    return all(one.holds(figures) for one in where)


#: What runs when nothing is configured.
DEFAULT_RULES = (
    Rule("default", (Condition("rarity"),)),
    Rule("build_up", (Condition("build_up"),), is_tag=True),
)

#: Rules by name, to be measured side by side.
PRESETS: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        DEFAULT_RULES[0],
        Rule("quiet", (Condition("rarity", {"risk": 1e-5, "move": 6.0}),)),
        Rule("breakout", (Condition("breakout"),)),
        DEFAULT_RULES[1],
        Rule("volume_ratio", (Condition("volume_ratio", {"minimum_turnover": 0.0}),)),
        Rule(
            "plain_pump",
            (Condition("threshold", {"turnover_ratio": 30.0, "move": 5.0, "window": 240}),),
            timeframes=(Timeframe.Min1,),
            direction=Direction.UP,
        ),
    )
}


def read_rules(text: str, source: str = "rules") -> tuple[Rule, ...]:
    """
    Args:
        source: what errors call the text, such as its file's name.
    Raises:
        ConfigurationError: no TOML, no rules, an unknown key or detector, or a value that cannot be.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(source, text[:60], f"is not TOML: {error}") from error
    tables = document.get("rules")
    if not isinstance(tables, dict) or not tables or len(document) > 1:
        raise ConfigurationError(source, sorted(document), "tables named rules.NAME and nothing else")
    return tuple(_rule(name, table) for name, table in tables.items())


# --- One rule ---------------------------------------------------------------------------------------------------------

_RULE_KEYS = (
    "conditions",
    "join",
    "within_minutes",
    "symbols",
    "classes",
    "timeframes",
    "minimum_turnover",
    "direction",
    "level",
    "schedule",
    "cooldown_minutes",
    "alerts_per_day",
    "tag",
    "rush_orders",
)
_CONDITION_KEYS = ("detector", "where", "times")


def _rule(name: str, table: object) -> Rule:
    key = f"rules.{name}"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name):
        raise ConfigurationError(key, name, "a name of letters, digits, _ and -, at most 40 of them")
    if isinstance(table, list):  # the short spelling of "any of these"
        table = {"conditions": table, "join": "any"}
    if not isinstance(table, dict):
        raise ConfigurationError(key, table, "a table with a detector")
    values = {name: value for name, value in table.items() if name in _RULE_KEYS}
    rest = {name: value for name, value in table.items() if name not in _RULE_KEYS}
    conditions = _conditions(key, values.pop("conditions", None), rest)
    join, at_least = _join(key, values.pop("join", "all"), len(conditions))
    rule = Rule(
        name=name,
        conditions=conditions,
        join=join,
        at_least=at_least,
        within_minutes=int(_number(key, values, "within_minutes", 0, least=0, most=1440)),
        symbols=_words(key, values, "symbols", ("*",)),
        classes=_words(key, values, "classes", ()),
        timeframes=tuple(_timeframe(f"{key}.timeframes", word) for word in _words(key, values, "timeframes", ())),
        minimum_turnover=_number(key, values, "minimum_turnover", 0.0, least=0.0),
        direction=_direction(key, values.get("direction", "any")),
        level=_choice(f"{key}.level", values.get("level", "notice"), Level),
        schedule=tuple(_hours(f"{key}.schedule", word) for word in _words(key, values, "schedule", ())),
        cooldown_minutes=_number(key, values, "cooldown_minutes", 60.0, least=1.0, most=10_080.0),
        alerts_per_day=_number(key, values, "alerts_per_day", 1.0, least=0.1) if "alerts_per_day" in values else None,
        is_tag=_flag(f"{key}.tag", values.get("tag", False)),
        rush_orders=int(_number(key, values, "rush_orders", 3, least=0, most=1000)),
    )
    _check_whole(key, rule)
    return rule


def _check_whole(key: str, rule: Rule) -> None:
    """What no single value shows."""
    kinds = {condition.kind.is_on_candles for condition in rule.conditions}
    if rule.within_minutes == 0:
        if rule.needed > 1 and len(kinds) > 1:
            expected = (
                "at least 1 where a condition on candles is joined to one on tickers: they have no candle in common"
            )
            raise ConfigurationError(f"{key}.within_minutes", 0, expected)
        if any(condition.times > 1 for condition in rule.conditions):
            raise ConfigurationError(f"{key}.within_minutes", 0, "at least 1 where a condition must hold several times")
    if rule.minimum_turnover > 0.0 and kinds == {False}:
        expected = "nothing: its detectors watch tickers, which have no candle"
        raise ConfigurationError(f"{key}.minimum_turnover", rule.minimum_turnover, expected)
    if rule.direction is Direction.DOWN and all(condition.detector == "breakout" for condition in rule.conditions):
        raise ConfigurationError(f"{key}.direction", "down", "up: breakout looks upwards only, so it would never fire")


def _conditions(key: str, listed: object, beside: dict[str, Any]) -> tuple[Condition, ...]:
    if listed is None:
        if "detector" not in beside:
            unknown = next(iter(beside), None)
            known = (*_RULE_KEYS, *_CONDITION_KEYS)
            if unknown is not None and (near := difflib.get_close_matches(unknown, known, 1)):
                raise ConfigurationError(f"{key}.{unknown}", beside[unknown], f"no such key; did you mean {near[0]}?")
            raise ConfigurationError(f"{key}.detector", None, f"one of {', '.join(KINDS)}, or a list of conditions")
        return (_condition(key, beside),)
    if beside:
        name, value = next(iter(beside.items()))
        expected = f"one of {', '.join(_RULE_KEYS)}; settings of a detector stand inside its condition"
        raise ConfigurationError(f"{key}.{name}", value, expected)
    if not isinstance(listed, list) or not listed:
        raise ConfigurationError(f"{key}.conditions", listed, "a list of tables, each with a detector")
    return tuple(_condition(f"{key}.conditions[{number}]", table) for number, table in enumerate(listed))


def _condition(key: str, table: object) -> Condition:
    if not isinstance(table, dict):
        raise ConfigurationError(key, table, "a table with a detector")
    detector = table.get("detector")
    if not isinstance(detector, str) or detector not in KINDS:
        near = difflib.get_close_matches(str(detector), KINDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigurationError(f"{key}.detector", detector, f"one of {', '.join(KINDS)}{hint}")
    settings = {name: value for name, value in table.items() if name not in _CONDITION_KEYS}
    known = list(inspect.signature(KINDS[detector].make).parameters)
    for name, value in settings.items():
        if name not in known:
            also = ", ".join(known) if known else "nothing: it has no settings"
            raise ConfigurationError(f"{key}.{name}", value, f"a setting of {detector}: one of {also}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"{key}.{name}", value, "a number that is finite")
    if "thresholds" in settings:
        _check_thresholds(f"{key}.thresholds", settings["thresholds"])
    condition = Condition(
        detector=detector,
        settings=settings,
        where=tuple(_comparison(f"{key}.where", word) for word in _words(key, table, "where", ())),
        times=int(_number(key, table, "times", 1, least=1, most=1000)),
    )
    try:
        condition.make()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(key, settings, str(error)) from error
    return condition


def _check_thresholds(key: str, values: object) -> None:
    expected = f"a number for each of {', '.join(ANALYSED_TIMEFRAMES)}"
    if not isinstance(values, dict) or not values:
        raise ConfigurationError(key, values, expected)
    for name, value in values.items():
        if name not in set(ANALYSED_TIMEFRAMES) or not _is_number(value):
            raise ConfigurationError(key, values, expected)


_COMPARISON = re.compile(r"\s*([a-z_0-9: -]+?)\s*(>=|<=|>|<)\s*([-+0-9.eE_]+)\s*(%|x)?\s*(if known)?\s*")


def _comparison(key: str, text: str) -> Comparison:
    match = _COMPARISON.fullmatch(text)
    try:
        number = float(match[3]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise ConfigurationError(key, text, "a figure and a number, as in 'move_ratio >= 6' or 'trades > 20 if known'")
    if match[1].startswith("score"):
        raise ConfigurationError(key, text, "any other figure: the score ranks and colours alerts, it never decides")
    return Comparison(match[1], match[2], number, match[5] is not None)


def _join(key: str, value: object, conditions: int) -> tuple[Join, int]:
    match value:
        case "all" | "any":
            return Join(value), 0
        case str() if found := re.fullmatch(r"at least (\d+)", value.strip()):
            count = int(found[1])
            if 1 <= count <= conditions:
                return Join.AT_LEAST, count
    expected = f"'all', 'any' or 'at least N' with N up to the {conditions} condition(s)"
    raise ConfigurationError(f"{key}.join", value, expected)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(
    key: str, values: Mapping[str, Any], name: str, default: float, *, least: float, most: float = math.inf
) -> float:
    value = values.get(name, default)
    if not _is_number(value) or not least <= value <= most:
        bound = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise ConfigurationError(f"{key}.{name}", value, f"a number, {bound}")
    if isinstance(default, int) and value != int(value):
        raise ConfigurationError(f"{key}.{name}", value, "a whole number")
    return float(value)


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(key, value, "true or false")
    return value


def _words(key: str, values: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = values.get(name, default)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) and word.strip("! ") for word in value):
        raise ConfigurationError(f"{key}.{name}", value, "a list of words")
    if name in values and not value:
        raise ConfigurationError(f"{key}.{name}", value, "a list that is not empty; leave the key out for no limit")
    return tuple(value)


def _timeframe(key: str, word: str) -> Timeframe:
    if word not in set(ANALYSED_TIMEFRAMES):
        raise ConfigurationError(key, word, f"one of {', '.join(ANALYSED_TIMEFRAMES)}")
    return Timeframe(word)


def _direction(key: str, value: object) -> Direction | None:
    if value == "any":
        return None
    if value not in ("up", "down"):
        raise ConfigurationError(f"{key}.direction", value, "up, down or any")
    return Direction(value)


def _choice(key: str, value: object, words: type[_Word]) -> _Word:
    if not isinstance(value, str) or value not in list(words):
        raise ConfigurationError(key, value, f"one of {', '.join(words)}")
    return words(value)


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _hours(key: str, text: str) -> Hours:
    expected = "days, hours or both, UTC, as in 'mon-fri 13:30-20:00', 'sat,sun' or '22:00-06:00'"
    days: tuple[int, ...] = tuple(range(7))
    start, end = 0, 1440
    words = text.lower().split()
    if not 1 <= len(words) <= 2:
        raise ConfigurationError(key, text, expected)
    for word in words:
        if span := re.fullmatch(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})", word):
            first_hour, first_minute, last_hour, last_minute = (int(part) for part in span.groups())
            start, end = 60 * first_hour + first_minute, 60 * last_hour + last_minute
            if max(first_minute, last_minute) > 59 or start >= 1440 or end > 1440 or start == end:
                raise ConfigurationError(key, text, expected)
        elif word is words[0]:
            days = _days(key, text, word, expected)
        else:
            raise ConfigurationError(key, text, expected)
    return Hours(days, start, end)


def _days(key: str, text: str, word: str, expected: str) -> tuple[int, ...]:
    days: set[int] = set()
    for part in word.split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ConfigurationError(key, text, expected)
        one, until = _DAYS.index(first), _DAYS.index(last or first)
        days.update((one + step) % 7 for step in range((until - one) % 7 + 1))
    return tuple(sorted(days))


# --- What changed -----------------------------------------------------------------------------------------------------


def difference(before: Iterable[Rule], after: Iterable[Rule]) -> list[str]:
    """One line for each rule that came, went or changed, in words."""
    old, new = {rule.name: rule for rule in before}, {rule.name: rule for rule in after}
    lines = [f"+ rule {name}: {describe(rule)}" for name, rule in new.items() if name not in old]
    lines += [f"- rule {name}" for name in old if name not in new]
    for name, rule in new.items():
        if name in old and old[name] != rule:
            changes = [
                f"{field}: {_shown(getattr(old[name], field))} -> {_shown(getattr(rule, field))}"
                for field in rule.__struct_fields__
                if getattr(old[name], field) != getattr(rule, field)
            ]
            lines.append(f"~ rule {name}: {'; '.join(changes)}")
    return lines


def describe(rule: Rule) -> str:
    """The rule in one line."""
    join = f" {'and' if rule.join is Join.ALL else 'or'} "
    text = join.join(str(condition) for condition in rule.conditions)
    if rule.join is Join.AT_LEAST:
        text = f"at least {rule.at_least} of: {text}"
    if rule.within_minutes:
        text += f" within {rule.within_minutes} min"
    default = Rule(rule.name, rule.conditions)
    skipped = ("name", "conditions", "join", "at_least", "within_minutes")
    for field in rule.__struct_fields__:
        if field not in skipped and getattr(rule, field) != getattr(default, field):
            text += f", {field.removeprefix('is_')} {_shown(getattr(rule, field))}"
    return text


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(one) for one in value) or "none"
    if isinstance(value, Hours):
        days = ",".join(_DAYS[day] for day in value.days)
        hours = f"{value.start // 60:02}:{value.start % 60:02}-{value.end // 60:02}:{value.end % 60:02}"
        return f"{days} {hours}"
    return "none" if value is None else str(value)
