"""The rules of a running watch: presets as the settings turn them, and files that are looked at again while it runs."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from perpwatch.app.config import Config
from perpwatch.detect.rules import PRESETS, Condition, Rule, read_rules
from perpwatch.errors import ConfigurationError


class RuleSources:
    """Where the rules of a configuration come from; :meth:`read` them, and ask :meth:`changed` now and then."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.files = [Path(source) for source in config.detection.rules if source not in PRESETS]
        self._stamps: dict[Path, tuple[int, int] | None] = {}

    def read(self) -> tuple[Rule, ...]:
        """
        Raises:
            ConfigurationError: a file that cannot be read, a wrong rule, or two rules of one name.
        """
        self._stamps = {path: _stamp(path) for path in self.files}
        rules: list[Rule] = []
        for source in self._config.detection.rules:
            rules += [self._preset(PRESETS[source])] if source in PRESETS else _read(Path(source))
        names = [rule.name for rule in rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError("detection.rules", twice, "each rule under a name of its own")
        wanted = self._config.detection.alerts_per_day
        return tuple(
            replace(rule, alerts_per_day=wanted) if rule.alerts_per_day is None and not rule.is_tag else rule
            for rule in rules
        )

    def changed(self) -> tuple[Rule, ...] | None:
        """All rules when a file is another than at the last look, else None; to be asked every second or so.

        Raises:
            ConfigurationError: the new rules are wrong; told once, the old ones should stay in force.
        """
        stamps = {path: _stamp(path) for path in self.files}
        # A file that is not there is just being replaced by an editor.
        if stamps == self._stamps or None in stamps.values():
            return None
        return self.read()

    def _preset(self, rule: Rule) -> Rule:
        detection, websocket = self._config.detection, self._config.websocket
        rule = replace(rule, minimum_turnover=max(rule.minimum_turnover, detection.minimum_turnover))
        if rule.name != "volume_ratio":
            return rule
        settings = {
            "thresholds": {timeframe.value: ratio for timeframe, ratio in detection.thresholds.items()},
            "running_threshold": websocket.real_time_volume_threshold,
            "window": detection.window,
            "minimum_turnover": detection.minimum_turnover,
        }
        return replace(rule, conditions=(Condition("volume_ratio", settings),))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read(path: Path) -> tuple[Rule, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("detection.rules", str(path), f"a TOML file that can be read ({error})") from error
    return read_rules(text, str(path))
