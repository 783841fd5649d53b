"""Settings: defaults here, then a TOML file, then the environment (``PERPWATCH_WEBSOCKET__PING_INTERVAL=10``).

Unknown keys and impossible values are refused at start, with the key, the value and what would be right.
"""

from __future__ import annotations

import enum
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from perpwatch.detect.volume_ratio import DEFAULT_MINIMUM_TURNOVER, DEFAULT_THRESHOLDS, DEFAULT_WINDOW
from perpwatch.errors import ConfigurationError
from perpwatch.exchanges.mexc import REST_URL, WEBSOCKET_URL
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.feed.plan import WISH_NAMES, parse_wish
from perpwatch.model import ANALYSED_TIMEFRAMES, Timeframe

DEFAULT_FILE = Path("perpwatch.toml")


def _is_url(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"give an address like {schemes[-1]}://host/path")
        return url.rstrip("/")

    return AfterValidator(check)


def _check_timeframes(timeframes: list[Timeframe]) -> list[Timeframe]:
    wrong = [timeframe.value for timeframe in timeframes if timeframe not in ANALYSED_TIMEFRAMES]
    if wrong or not timeframes:
        raise ValueError(f"choose from {', '.join(ANALYSED_TIMEFRAMES)}")
    return sorted(set(timeframes), key=ANALYSED_TIMEFRAMES.index)


def _check_wishes(names: list[str]) -> list[str]:
    for name in names:
        parse_wish(name)
    if not names:
        raise ValueError(f"choose at least one of {', '.join(WISH_NAMES)}")
    return list(dict.fromkeys(names))


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WebsocketConfig(_Table):
    """The sockets. These are the keys of the brief's ``WEBSOCKET_CONFIG``."""

    enabled: bool = True
    base_url: Annotated[str, _is_url("ws", "wss")] = WEBSOCKET_URL
    max_connections: Annotated[int, Field(ge=1)] = LIMITS.max_connections
    max_subscriptions_per_connection: Annotated[int, Field(ge=1)] = LIMITS.max_subscriptions_per_connection
    planned_subscriptions_per_connection: Annotated[int, Field(ge=1)] = 95
    ping_interval: Annotated[float, Field(ge=1, le=50)] = LIMITS.ping_interval_s
    reconnect_delay: Annotated[float, Field(gt=0, le=60)] = 1.0
    max_reconnect_attempts: Annotated[int, Field(ge=0)] = 0
    commands_per_second: Annotated[float, Field(gt=0)] = LIMITS.commands_per_second
    dials_per_second: Annotated[float, Field(gt=0)] = LIMITS.dials_per_second
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
    base_url: Annotated[str, _is_url("http", "https")] = REST_URL
    requests_per_second: Annotated[float, Field(gt=0)] = LIMITS.requests_per_second
    audit_share: Annotated[float, Field(ge=0, le=0.9)] = 0.4  # of the requests, for reading closed candles again
    history_minutes: Annotated[int, Field(ge=60, le=40_000)] = 1_980


class NetworkConfig(_Table):
    proxy: Annotated[str, _is_url("http", "https", "socks4", "socks5")] | None = None


class UniverseConfig(_Table):
    quote: str = "USDT"
    include: list[str] = ["*"]
    exclude: list[str] = []
    limit: Annotated[int, Field(ge=0)] = 0


class DetectionConfig(_Table):
    window: Annotated[int, Field(ge=1, le=500)] = DEFAULT_WINDOW
    minimum_turnover: Annotated[float, Field(ge=0)] = DEFAULT_MINIMUM_TURNOVER
    thresholds: dict[Timeframe, Annotated[float, Field(ge=1)]] = dict(DEFAULT_THRESHOLDS)


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LoggingConfig(_Table):
    level: LogLevel = LogLevel.INFO
    format: Literal["auto", "text", "json"] = "auto"


class Config(BaseSettings):
    """Everything that can be set. ``perpwatch config show`` prints it."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="PERPWATCH_", env_nested_delimiter="__", toml_file=None
    )

    exchange: Literal["mexc"] = "mexc"
    timeframes: Annotated[list[Timeframe], AfterValidator(_check_timeframes)] = list(ANALYSED_TIMEFRAMES)
    analysis_interval: Annotated[float, Field(ge=1)] = 60.0  # seconds between status lines
    websocket: WebsocketConfig = WebsocketConfig()
    rest: RestConfig = RestConfig()
    network: NetworkConfig = NetworkConfig()
    universe: UniverseConfig = UniverseConfig()
    detection: DetectionConfig = DetectionConfig()
    logging: LoggingConfig = LoggingConfig()

    def with_overrides(self, overrides: dict[str, Any]) -> Config:
        """The same settings with some replaced, checked as at start; tables are merged.

        Raises:
            ConfigurationError: an unknown key or an impossible value.
        """
        values = self.model_dump()
        for key, value in overrides.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) and key in values else value
        try:
            return Config.model_validate(values)
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
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """Settings from ``path``, else from ``perpwatch.toml`` in the folder, else the defaults; the environment wins.

    Args:
        overrides: nested tables that win over everything (the command line).
    Raises:
        ConfigurationError: a file that is not there or not TOML, an unknown key, an impossible value.
    """
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    if path is not None:
        _check_toml(path)
    _check_environment()

    class FileConfig(Config):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FileConfig(**(overrides or {}))
    except ValidationError as error:
        raise _explained(error) from error


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
        model: type[BaseModel] | None = Config
        for part in name.upper().removeprefix("PERPWATCH_").lower().split("__"):
            fields = model.model_fields if model is not None else {}
            if part not in fields:
                known = ", ".join(fields) or "nothing below it"
                raise ConfigurationError(name, os.environ[name], f"no such setting; {part!r} is not one of: {known}")
            annotation = fields[part].annotation
            model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _explained(error: ValidationError) -> ConfigurationError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        model: Any = Config
        for part in first["loc"][:-1]:
            model = model.model_fields[str(part)].annotation
        return ConfigurationError(key, first["input"], f"no such setting; there are: {', '.join(model.model_fields)}")
    expected = first["msg"].removeprefix("Value error, ")
    return ConfigurationError(key, first["input"], expected)
