"""Settings: defaults here, then a TOML file, then the environment (``PERPWATCH_WEBSOCKET__PING_INTERVAL=10``).

Unknown keys and impossible values are refused at start, with the key, the value and what would be right.
"""

from __future__ import annotations

import difflib
import enum
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from perpwatch.app.alerts_config import CHANNELS, AlertsConfig, channel_keys
from perpwatch.app.dashboard_config import DashboardConfig
from perpwatch.app.health_config import HealthConfig
from perpwatch.app.recording_config import RecordingConfig
from perpwatch.app.store_config import StoreConfig
from perpwatch.app.url_setting import is_url
from perpwatch.detect.rules import DEFAULT_RULES, PRESETS
from perpwatch.detect.volume_ratio import DEFAULT_MINIMUM_TURNOVER, DEFAULT_THRESHOLDS, DEFAULT_WINDOW
from perpwatch.errors import ConfigurationError
from perpwatch.exchanges.mexc import REST_URL, WEBSOCKET_URL
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.feed.plan import WISH_NAMES, Mode, parse_wish
from perpwatch.model import ANALYSED_TIMEFRAMES, AssetClass, Timeframe

DEFAULT_FILE = Path("perpwatch.toml")
DEFAULT_SOURCES = tuple(rule.name for rule in DEFAULT_RULES)


def _check_timeframe(name: object) -> object:
    """Refuse the timeframes that the exchange has but nobody analyses, with the same words as unknown ones."""
    if name not in ANALYSED_TIMEFRAMES:
        raise ValueError(f"choose from {', '.join(ANALYSED_TIMEFRAMES)}")
    return name


#: A timeframe that is analysed.
AnalysedTimeframe = Annotated[Timeframe, BeforeValidator(_check_timeframe)]


def _check_timeframes(timeframes: list[Timeframe]) -> list[Timeframe]:
    if not timeframes:
        raise ValueError(f"choose at least one of {', '.join(ANALYSED_TIMEFRAMES)}")
    return sorted(set(timeframes), key=ANALYSED_TIMEFRAMES.index)


def _with_default_thresholds(thresholds: object) -> object:
    """A table like the others: what is not given keeps its default."""
    return {**DEFAULT_THRESHOLDS, **thresholds} if isinstance(thresholds, Mapping) else thresholds


def _check_wishes(names: list[str]) -> list[str]:
    for name in names:
        parse_wish(name)
    if not names:
        raise ValueError(f"choose at least one of {', '.join(WISH_NAMES)}")
    return list(dict.fromkeys(names))


def _check_rule_sources(sources: list[str]) -> list[str]:
    for source in sources:
        if source not in PRESETS and not source.endswith(".toml"):
            raise ValueError(
                f"no such rule: {source!r}; choose from {', '.join(PRESETS)}, or name a .toml file of rules"
            )
    return list(dict.fromkeys(sources))


class _NumbersAreNumbers(BaseModel):
    """``true`` is no number, although Python thinks so."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("should be a number")
        return value


class _Table(_NumbersAreNumbers):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WebsocketConfig(_Table):
    """The sockets. These are the keys of the brief's ``WEBSOCKET_CONFIG``."""

    enabled: bool | None = None  # None follows the mode; a word against the mode is refused
    base_url: Annotated[str, is_url("ws", "wss")] = WEBSOCKET_URL
    max_connections: Annotated[int, Field(ge=1)] = LIMITS.max_connections
    max_subscriptions_per_connection: Annotated[int, Field(ge=1)] = LIMITS.max_subscriptions_per_connection
    planned_subscriptions_per_connection: Annotated[int, Field(ge=1)] = 95
    explore_capacity: bool = False  # learn how many subscriptions a connection takes, up to the configured limit
    ping_interval: Annotated[float, Field(ge=1, le=50)] = LIMITS.ping_interval_s
    connection_lifetime: Annotated[float, Field(ge=60)] = LIMITS.connection_lifetime_s  # then another takes over
    reconnect_delay: Annotated[float, Field(gt=0, le=60)] = 1.0
    max_reconnect_attempts: Annotated[int, Field(ge=0)] = 0
    commands_per_second: Annotated[float, Field(gt=0)] = LIMITS.commands_per_second
    dials_per_second: Annotated[float, Field(gt=0)] = LIMITS.dials_per_second
    hot_moves_per_minute: Annotated[int, Field(ge=1)] = 10  # trades subscriptions that may go to another symbol
    subscription_types: Annotated[list[str], AfterValidator(_check_wishes)] = [
        "ticker",
        "kline_Min1",
        "kline_Min5",
        "kline_Min15",
        "kline_Min60",
    ]
    enable_real_time_analysis: bool = True
    real_time_volume_threshold: Annotated[float, Field(ge=1)] = DEFAULT_THRESHOLDS[Timeframe.Min1]


class RestConfig(_Table):
    base_url: Annotated[str, is_url("http", "https")] = REST_URL
    requests_per_second: Annotated[float, Field(gt=0)] = LIMITS.requests_per_second
    contracts_interval: Annotated[float, Field(ge=10)] = 300.0  # seconds between two readings of the contract list
    ticker_interval: Annotated[float, Field(ge=0)] = 60.0  # seconds; open interest, funding and best prices
    funding_interval: Annotated[float, Field(ge=0)] = 300.0  # seconds
    audit_share: Annotated[float, Field(ge=0, le=0.9)] = 0.4  # of the requests, for reading closed candles again
    history_minutes: Annotated[int, Field(ge=60, le=LIMITS.max_candles_per_request)] = 1_980


class NetworkConfig(_Table):
    proxy: Annotated[str, is_url("http", "https", "socks4", "socks5")] | None = None


class UniverseConfig(_Table):
    quote: str = "USDT"
    include: list[str] = ["*"]
    exclude: list[str] = []
    classes: list[AssetClass] = []
    exclude_classes: list[AssetClass] = []
    minimum_turnover_24h: Annotated[float, Field(ge=0)] = 0.0  # quote coin
    minimum_activity: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the last hour's minutes with trades
    minimum_age_days: Annotated[float, Field(ge=0)] = 0.0
    limit: Annotated[int, Field(ge=0)] = 0
    pins: list[str] = []

    @field_validator("exclude_classes")
    @classmethod
    def _do_not_contradict(cls, excluded: list[AssetClass], info: ValidationInfo) -> list[AssetClass]:
        both = [one for one in excluded if one in info.data.get("classes", ())]
        if both:
            raise ValueError(f"{both[0]} is in universe.classes, too; name each class in one of the two")
        return excluded

    @field_validator("pins")
    @classmethod
    def _fit_into_the_limit(cls, pins: list[str], info: ValidationInfo) -> list[str]:
        pins = list(dict.fromkeys(pins))
        limit = info.data.get("limit", 0)
        if limit and len(pins) > limit:
            raise ValueError(f"at most universe.limit ({limit}) pins, or a larger limit")
        return pins


class DetectionConfig(_Table):
    rules: Annotated[list[str], Field(min_length=1), AfterValidator(_check_rule_sources)] = list(DEFAULT_SOURCES)
    alerts_per_day: Annotated[float, Field(ge=0.1)] | None = None  # of each rule without a budget of its own
    minimum_turnover: Annotated[float, Field(ge=0)] = DEFAULT_MINIMUM_TURNOVER  # quote coin, in the candle
    window: Annotated[int, Field(ge=1, le=500)] = DEFAULT_WINDOW
    thresholds: Annotated[
        dict[AnalysedTimeframe, Annotated[float, Field(ge=1, allow_inf_nan=False)]],
        BeforeValidator(_with_default_thresholds),
    ] = dict(DEFAULT_THRESHOLDS)


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LoggingConfig(_Table):
    level: LogLevel = LogLevel.INFO
    format: Literal["text", "json"] = "text"


class _Environment(EnvSettingsSource):
    """The environment, forgiving in form: lists also with commas, names of timeframes in any case."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return json.loads(value)
        except ValueError:
            if field is not None and get_origin(field.annotation) is list:
                return [part.strip() for part in value.split(",") if part.strip()]
            return value  # and let the validation say, with the key, what would be right

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        detection = values.get("detection")
        if isinstance(detection, dict) and isinstance(detection.get("thresholds"), dict):
            names = {name.lower(): name.value for name in ANALYSED_TIMEFRAMES}
            detection["thresholds"] = {
                names.get(key.lower(), key): value for key, value in detection["thresholds"].items()
            }
        return values


class Config(BaseSettings, _NumbersAreNumbers):
    """Everything that can be set. ``perpwatch config show`` prints it."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        env_prefix="PERPWATCH_",
        env_nested_delimiter="__",
        toml_file=None,
    )

    exchange: Literal["mexc"] = "mexc"
    mode: Mode = Mode.DUAL
    timeframes: Annotated[list[AnalysedTimeframe], AfterValidator(_check_timeframes)] = list(ANALYSED_TIMEFRAMES)
    analysis_interval: Annotated[float, Field(ge=1)] = 60.0  # seconds between status lines
    websocket: WebsocketConfig = WebsocketConfig()
    rest: RestConfig = RestConfig()
    network: NetworkConfig = NetworkConfig()
    universe: UniverseConfig = UniverseConfig()
    detection: DetectionConfig = DetectionConfig()
    alerts: AlertsConfig = AlertsConfig()
    store: StoreConfig = StoreConfig()
    recording: RecordingConfig = RecordingConfig()
    health: HealthConfig = HealthConfig()
    dashboard: DashboardConfig = DashboardConfig()
    logging: LoggingConfig = LoggingConfig()

    @field_validator("mode", mode="before")
    @classmethod
    def _is_a_mode(cls, value: object) -> object:
        if value not in list(Mode):
            raise ValueError(f"choose from {', '.join(Mode)}")
        return value

    @field_validator("websocket", mode="after")
    @classmethod
    def _agrees_with_the_mode(cls, websocket: WebsocketConfig, info: ValidationInfo) -> WebsocketConfig:
        mode = info.data.get("mode")
        if mode is None:
            return websocket  # it is wrong itself
        if websocket.enabled is not None and websocket.enabled is not (mode is not Mode.REST):
            word = str(websocket.enabled).lower()
            right = f'mode = "{Mode.REST}"' if mode is not Mode.REST else f'mode = "{Mode.DUAL}" or "{Mode.WEBSOCKET}"'
            raise ValueError(f'enabled = {word} contradicts mode = "{mode}"; leave it out, or say {right}')
        if mode is Mode.REST and set(websocket.subscription_types) == {"deals"}:
            raise ValueError(f'deals come by sockets alone, which mode = "{mode}" does not use; add ticker or candles')
        return websocket

    def with_overrides(self, overrides: Mapping[str, Any]) -> Config:
        """The same settings with some replaced, checked as at start; tables are merged.

        Raises:
            ConfigurationError: an unknown key or an impossible value.
        """
        try:
            return Config.model_validate(_merged(self.model_dump(), overrides))
        except ValidationError as error:
            raise _explained(error) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), TomlConfigSettingsSource(settings_cls)


def file_in_use(path: Path | None) -> Path | None:
    """The configuration file that :func:`load_config` reads; what is kept and secret lies beside it."""
    return path or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Settings from ``path``, else from ``perpwatch.toml`` in the folder, else the defaults; the environment wins.

    Args:
        overrides: nested tables that win over everything (the command line).
    Raises:
        ConfigurationError: a file that is not there or not TOML, an unknown key, an impossible value.
    """
    path = file_in_use(path)
    if path is not None:
        _check_toml(path)
    _check_environment()

    class FileConfig(Config):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FileConfig(**(overrides or {}))
    except ValidationError as error:
        raise _explained(error) from error


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with keys such as ``websocket.base_url``."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def _merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in overrides.items():
        below = merged.get(key)
        is_table = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merged(below, value) if is_table else value  # type: ignore[arg-type]
    return merged


def _check_toml(path: Path) -> None:
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError("--config", str(path), "there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("--config", str(path), f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError("--config", str(path), f"is not TOML: {error}") from error


def _check_environment() -> None:
    """A misspelt variable would silently do nothing, so every PERPWATCH_ variable must name a key."""
    for name in os.environ:
        if not name.upper().startswith("PERPWATCH_"):
            continue
        known: dict[str, Any] = dict(Config.model_fields)
        parts = name.upper().removeprefix("PERPWATCH_").lower().split("__")
        if parts[:2] == ["alerts", "channels"] and len(parts) > 3:
            known, parts = dict(channel_keys("")), parts[3:]  # the third is a name of the user's
        for part in parts:
            if part not in known:
                raise ConfigurationError(name, os.environ[name], _no_such(part, known))
            known = _below(known[part])


def _below(field: Any) -> dict[str, Any]:
    """The keys of a table, in lower case; none for a value."""
    annotation = getattr(field, "annotation", None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return dict(annotation.model_fields)
    if get_origin(annotation) is dict:
        return {timeframe.lower(): None for timeframe in ANALYSED_TIMEFRAMES}
    return {}


def _no_such(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"no such setting; {hint}there are: {', '.join(known)}" if known else "no such setting; nothing is below it"


def _explained(error: ValidationError) -> ConfigurationError:
    first = error.errors()[0]
    path = [part for part in first["loc"] if part != "[key]"]
    if path[:2] == ["alerts", "channels"] and len(path) > 2:
        return _explained_channel(path, first)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    if first["type"] == "extra_forbidden":
        return ConfigurationError(key, first["input"], _no_such(str(path[-1]), _table(path[:-1]).model_fields))
    if path[0] == "dashboard" and len(path) == 1:
        # What is wrong lies between two keys, and the table holds a secret.
        return ConfigurationError("dashboard", "this table", first["msg"].removeprefix("Value error, "))
    if path[-1] == "token":
        return ConfigurationError(key, "(not shown)", first["msg"])
    if first["type"] == "model_type":
        return ConfigurationError(key, first["input"], f"should be a table of: {', '.join(_table(path).model_fields)}")
    if first["type"] == "dict_type":
        return ConfigurationError(key, first["input"], f"should be a table of: {', '.join(ANALYSED_TIMEFRAMES)}")
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return ConfigurationError(key, first["input"], expected)


def _explained_channel(path: list[str | int], first: ErrorDetails) -> ConfigurationError:
    """What is wrong with a channel. Values that are no setting of it are not shown: one may be a secret."""
    *_, name, type_name = path[:4] if len(path) > 3 else [*path, ""]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in [name, *path[4:]])
    key = f"alerts.channels{key}"
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "extra_forbidden":
        return ConfigurationError(key, "(not shown)", _no_such(str(path[-1]), channel_keys(str(type_name))))
    if first["type"] == "union_tag_not_found":
        return ConfigurationError(f"{key}.type", None, f"choose one of {', '.join(CHANNELS)}")
    if first["type"] == "union_tag_invalid":
        return ConfigurationError(f"{key}.type", first["input"].get("type"), f"choose one of {', '.join(CHANNELS)}")
    if len(path) <= 4:
        # What is wrong lies between two keys, or it is no table at all.
        return ConfigurationError(key, "this table", expected)
    return ConfigurationError(key, first["input"], expected)


def _table(path: Iterable[str | int]) -> type[BaseModel]:
    model: Any = Config
    for part in path:
        model = model.model_fields[str(part)].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return model
