"""Rules by name: which detectors, with which settings; written in TOML, turned into fresh detectors.

    [rules.quiet]
    detector = "rarity"
    risk = 1e-5
    move = 6.0

    [[rules.both]]                 # several detectors make one rule
    detector = "breakout"
    [[rules.both]]
    detector = "volume_ratio"
    window = 50

Settings are those of the detector's constructor; whatever is wrong is refused with the key, the value and what would be
right.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence

from perpwatch.detect.breakout import Breakout
from perpwatch.detect.build_up import BuildUp
from perpwatch.detect.detector import Detector
from perpwatch.detect.rarity import VolumeRarity
from perpwatch.detect.volume_ratio import VolumeRatio
from perpwatch.errors import ConfigurationError
from perpwatch.model import Timeframe

#: Makes fresh detectors for one market.
RuleFactory = Callable[[], Sequence[Detector]]

#: Detectors on candles, by the name their signals carry.
DETECTORS: Mapping[str, Callable[..., Detector]] = {
    "rarity": VolumeRarity,
    "breakout": Breakout,
    "build_up": BuildUp,
    "volume_ratio": VolumeRatio,
}


def read_rules(text: str) -> dict[str, RuleFactory]:
    """
    Raises:
        ConfigurationError: no TOML, no rules, an unknown detector or setting, or a value that the detector refuses.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError("rules", text[:60], f"TOML ({error})") from error
    rules = document.get("rules")
    if not isinstance(rules, dict) or not rules or len(document) > 1:
        raise ConfigurationError("rules", sorted(document), "tables named rules.NAME and nothing else")
    return {name: _rule(f"rules.{name}", parts) for name, parts in rules.items()}


def _rule(key: str, parts: object) -> RuleFactory:
    tables = parts if isinstance(parts, list) else [parts]
    makers = [_maker(key, table) for table in tables]
    for make in makers:
        make()  # what a detector refuses is refused now
    return lambda: [make() for make in makers]


def _maker(key: str, table: object) -> Callable[[], Detector]:
    if not isinstance(table, dict):
        raise ConfigurationError(key, table, "a table with a detector")
    settings = dict(table)
    name = settings.pop("detector", None)
    if name not in DETECTORS:
        raise ConfigurationError(f"{key}.detector", name, f"one of {', '.join(DETECTORS)}")
    detector = DETECTORS[name]
    known = list(inspect.signature(detector).parameters)
    for setting in settings:
        if setting not in known:
            raise ConfigurationError(f"{key}.{setting}", settings[setting], f"one of {', '.join(known)}")
    if "thresholds" in settings:
        settings["thresholds"] = _thresholds(f"{key}.thresholds", settings["thresholds"])

    def make() -> Detector:
        try:
            return detector(**settings)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(key, settings, str(error)) from error

    return make


def _thresholds(key: str, values: object) -> dict[Timeframe, float]:
    expected = f"a number for each of {', '.join(Timeframe)}"
    if not isinstance(values, dict):
        raise ConfigurationError(key, values, expected)
    try:
        return {Timeframe(name): float(value) for name, value in values.items()}
    except (TypeError, ValueError):
        raise ConfigurationError(key, values, expected) from None
