"""Settings: where they come from, and that no wrong one is ever used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from perpwatch.alert.notice import NoticeKind
from perpwatch.app.alerts_config import read_secret
from perpwatch.app.bot import AsyncMexcAnalysisBot
from perpwatch.app.config import Config, load_config
from perpwatch.client import WEBSOCKET_CONFIG
from perpwatch.errors import ConfigurationError
from perpwatch.feed.plan import Mode
from perpwatch.model import Level, Timeframe


@pytest.fixture(autouse=True)
def empty_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a file and an environment without a variable of ours."""
    for name in [name for name in os.environ if name.upper().startswith("PERPWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(toml: str = "") -> ConfigurationError:
    Path("settings.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load_config(Path("settings.toml"))
    return refused.value


CONSOLE = "[alerts.channels.phone]\ntype = 'console'\n"

# --- What is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "key", "value", "right"),
    [
        ("timeframe = 1", "timeframe", 1, "did you mean timeframes?"),
        ("[websocket]\nbase_ur = 'x'", "websocket.base_ur", "x", "did you mean base_url?"),
        ("[rules]\nx = 1", "rules", {"x": 1}, "there are: exchange, mode, timeframes"),
        ("websocket = 3", "websocket", 3, "should be a table of: enabled, base_url"),
        ("[detection]\nthresholds = 3", "detection.thresholds", 3, "should be a table of: Min1, Min5"),
        ("[websocket]\nmax_connections = 'many'", "websocket.max_connections", "many", "integer"),
        ("[websocket]\nmax_connections = true", "websocket.max_connections", True, "should be a number"),
        ("analysis_interval = true", "analysis_interval", True, "should be a number"),
        ("[websocket]\nenabled = 'perhaps'", "websocket.enabled", "perhaps", "boolean"),
        ("[rest]\nhistory_minutes = 90.5", "rest.history_minutes", 90.5, "integer"),
        ("[rest]\nhistory_minutes = 2001", "rest.history_minutes", 2001, "less than or equal to 2000"),
        ("[universe]\ninclude = 'BTC_*'", "universe.include", "BTC_*", "list"),
        ("[universe]\nexclude = ['A_*', 1]", "universe.exclude[1]", 1, "string"),
        ("[websocket]\nmax_connections = 0", "websocket.max_connections", 0, "greater than or equal to 1"),
        (
            "[websocket]\nmax_subscriptions_per_connection = 0",
            "websocket.max_subscriptions_per_connection",
            0,
            "greater than or equal to 1",
        ),
        ("[detection]\nwindow = 0", "detection.window", 0, "greater than or equal to 1"),
        ("[websocket]\nping_interval = 55", "websocket.ping_interval", 55, "less than or equal to 50"),
        ("[websocket]\ncommands_per_second = inf", "websocket.commands_per_second", float("inf"), "finite"),
        ("[detection.thresholds]\nMin1 = 0.5", "detection.thresholds.Min1", 0.5, "greater than or equal to 1"),
        ("timeframes = ['Min1', 'Min2']", "timeframes[1]", "Min2", "choose from Min1, Min5, Min15, Min60"),
        ("timeframes = ['Min30']", "timeframes[0]", "Min30", "choose from Min1, Min5, Min15, Min60"),
        ("timeframes = []", "timeframes", [], "choose at least one of Min1"),
        ("[detection.thresholds]\nMin30 = 4", "detection.thresholds.Min30", "Min30", "choose from Min1, Min5"),
        (
            "[websocket]\nsubscription_types = ['depth']",
            "websocket.subscription_types",
            ["depth"],
            "choose from ticker, deals, kline_Min1",
        ),
        ("[websocket]\nbase_url = 'contract.mexc.com'", "websocket.base_url", "contract.mexc.com", "wss://host"),
        ("[websocket]\nbase_url = 'http://a/b'", "websocket.base_url", "http://a/b", "wss://host"),
        ("[websocket]\nbase_url = 'ws://a:99999/b'", "websocket.base_url", "ws://a:99999/b", "0-65535"),
        ("[websocket]\nbase_url = 'ws://[::1'", "websocket.base_url", "ws://[::1", "wss://host"),
        ("[websocket]\nbase_url = 'ws://a b/c'", "websocket.base_url", "ws://a b/c", "wss://host"),
        ("[rest]\nbase_url = 'ftp://a'", "rest.base_url", "ftp://a", "https://host"),
        ("[network]\nproxy = 'localhost'", "network.proxy", "localhost", "socks5://host"),
        ("exchange = 'binance'", "exchange", "binance", "'mexc'"),
        ("mode = 'both'", "mode", "both", "choose from websocket, rest, dual"),
        ("[alerts]\nlanguage = 'de'", "alerts.language", "de", "'en' or 'ru'"),
        ("[alerts]\ntime_zone = 'Berlin'", "alerts.time_zone", "Berlin", "give a name like Europe/Berlin"),
        ("[alerts.channels.phone]\ntype = 'pigeon'", "alerts.channels.phone.type", "pigeon", "one of console"),
        ("[alerts.channels.phone]\nlevel = 'strong'", "alerts.channels.phone.type", None, "one of console"),
        ("[alerts.channels.'My Phone']\ntype = 'console'", "alerts.channels.My Phone", "this table", "small letters"),
        ("[alerts.channels]\nphone = 'console'", "alerts.channels.phone", "this table", "dictionary"),
        (CONSOLE + "kinds = ['test']", "alerts.channels.phone.kinds[0]", "test", "choose from alert, market"),
        (CONSOLE + "level = 'loud'", "alerts.channels.phone.level", "loud", "'notice', 'strong'"),
        (CONSOLE + "classes = ['coins']", "alerts.channels.phone.classes[0]", "coins", "'coin'"),
        (CONSOLE + "quiet_hours = '23-7'", "alerts.channels.phone.quiet_hours", "23-7", "hours like 23:00-07:00"),
        (CONSOLE + "alerts_per_day = 0", "alerts.channels.phone.alerts_per_day", 0, "greater than or equal to 1"),
        (CONSOLE + "levle = 'strong'", "alerts.channels.phone.levle", "(not shown)", "did you mean level?"),
        ("[logging]\nlevel = 'loud'", "logging.level", "loud", "'debug', 'info'"),
        ("[logging]\nformat = 'xml'", "logging.format", "xml", "'json'"),
    ],
)
def test_a_wrong_setting_is_refused_with_key_value_and_what_would_be_right(
    toml: str, key: str, value: object, right: str
) -> None:
    error = refusal(toml)
    assert (error.key, error.value) == (key, value)
    assert right in error.expected
    assert key in str(error)
    assert repr(value) in str(error)


@pytest.mark.parametrize(
    ("toml", "right"),
    [
        ("mode = 'rest'\n[websocket]\nenabled = true", 'say mode = "dual" or "websocket"'),
        ("mode = 'dual'\n[websocket]\nenabled = false", 'say mode = "rest"'),
        ("[websocket]\nenabled = false", 'enabled = false contradicts mode = "dual"'),
        ("mode = 'rest'\n[websocket]\nsubscription_types = ['deals']", "deals come by sockets alone"),
    ],
)
def test_settings_that_contradict_the_mode_are_refused(toml: str, right: str) -> None:
    error = refusal(toml)
    assert error.key == "websocket"
    assert right in error.expected


def test_the_brief_may_ask_for_sockets_or_not() -> None:
    assert AsyncMexcAnalysisBot(enable_websocket=True).config.mode is Mode.DUAL
    assert AsyncMexcAnalysisBot(enable_websocket=False).config.mode is Mode.REST
    with pytest.raises(ConfigurationError, match="contradicts"):
        AsyncMexcAnalysisBot(enable_websocket=True, config=Config(mode=Mode.REST))


def test_a_file_that_is_not_there_or_not_toml_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--config = 'nowhere\.toml': there is no such file"):
        load_config(Path("nowhere.toml"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(Path("."))
    assert "line 1" in refusal("= 3").expected


@pytest.mark.parametrize(
    ("name", "value", "key", "right"),
    [
        ("PERPWATCH_WEBSOKET__BASE_URL", "ws://a/b", "PERPWATCH_WEBSOKET__BASE_URL", "did you mean websocket?"),
        ("PERPWATCH_WEBSOCKET__BASE_ULR", "ws://a/b", "PERPWATCH_WEBSOCKET__BASE_ULR", "did you mean base_url?"),
        ("PERPWATCH_EXCHANGE__NAME", "mexc", "PERPWATCH_EXCHANGE__NAME", "nothing is below it"),
        ("PERPWATCH_DETECTION__THRESHOLDS__MIN2", "3", "PERPWATCH_DETECTION__THRESHOLDS__MIN2", "min1, min5"),
        ("PERPWATCH_WEBSOCKET__MAX_CONNECTIONS", "0", "websocket.max_connections", "greater than or equal to 1"),
        ("PERPWATCH_WEBSOCKET__MAX_CONNECTIONS", "ten", "websocket.max_connections", "integer"),
        ("PERPWATCH_WEBSOCKET", "ws://a/b", "websocket", "should be a table of: enabled"),
        ("PERPWATCH_TIMEFRAMES", "Min1,Min2", "timeframes[1]", "choose from Min1"),
        (
            "PERPWATCH_ALERTS__CHANNELS__PHONE__LEVLE",
            "strong",
            "PERPWATCH_ALERTS__CHANNELS__PHONE__LEVLE",
            "mean level?",
        ),
        ("PERPWATCH_ALERTS__CHANNELS__PHONE__TYPE", "pigeon", "alerts.channels.phone.type", "one of console"),
        ("PERPWATCH_DETECTION__THRESHOLDS__MIN1", "lots", "detection.thresholds.Min1", "number"),
    ],
)
def test_a_wrong_variable_is_refused(
    name: str, value: str, key: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load_config()
    assert refused.value.key == key
    assert right in refused.value.expected


@pytest.mark.parametrize(
    "overrides", [{"exchange": {}}, {"websocket": 3}, {"websocket": {"enable": True}}, {"detection": {"window": 0}}]
)
def test_overrides_are_checked_like_a_file(overrides: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Config().with_overrides(overrides)
    with pytest.raises(ConfigurationError):
        load_config(overrides=overrides)


# --- Where settings come from --------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file_and_overrides_win_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("some.toml").write_text(
        "analysis_interval = 30\n[websocket]\nmax_connections = 3\nmax_subscriptions_per_connection = 30\n"
        "[detection.thresholds]\nMin1 = 3\nMin5 = 3\nMin15 = 3\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PERPWATCH_WEBSOCKET__MAX_CONNECTIONS", "4")
    monkeypatch.setenv("perpwatch_websocket__ping_interval", "12")
    monkeypatch.setenv("PERPWATCH_DETECTION__THRESHOLDS__MIN1", "4")
    monkeypatch.setenv("PERPWATCH_DETECTION__THRESHOLDS__Min5", "4")
    config = load_config(
        Path("some.toml"), {"websocket": {"ping_interval": 9}, "detection": {"thresholds": {"Min5": 5}}}
    )
    assert config.analysis_interval == 30.0  # file
    assert config.websocket.max_subscriptions_per_connection == 30  # file
    assert config.websocket.max_connections == 4  # environment over file
    assert config.websocket.ping_interval == 9.0  # override over environment
    assert config.websocket.reconnect_delay == 1.0  # default
    assert [config.detection.thresholds[Timeframe(name)] for name in ("Min1", "Min5", "Min15", "Min60")] == [4, 5, 3, 5]


def test_perpwatch_toml_of_the_folder_is_used_unless_another_file_is_named() -> None:
    Path("perpwatch.toml").write_text("analysis_interval = 7", encoding="utf-8")
    Path("other.toml").write_text("[websocket]\nmax_connections = 2", encoding="utf-8")
    assert load_config().analysis_interval == 7.0
    assert load_config(Path("other.toml")).analysis_interval == 60.0


def test_a_list_in_the_environment_is_json_or_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPWATCH_TIMEFRAMES", '["Min5", "Min1"]')
    monkeypatch.setenv("PERPWATCH_WEBSOCKET__SUBSCRIPTION_TYPES", "ticker, deals")
    config = load_config()
    assert config.timeframes == [Timeframe.Min1, Timeframe.Min5]
    assert config.websocket.subscription_types == ["ticker", "deals"]


def test_a_whole_table_can_be_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPWATCH_WEBSOCKET", '{"max_connections": 2}')
    monkeypatch.setenv("PERPWATCH_DETECTION__THRESHOLDS", '{"Min1": 3}')
    config = load_config()
    assert (config.websocket.max_connections, config.websocket.ping_interval) == (2, 15.0)
    assert config.detection.thresholds == {"Min1": 3, "Min5": 8, "Min15": 6, "Min60": 5}


def test_overrides_of_a_config_keep_everything_else() -> None:
    config = load_config(overrides={"websocket": {"max_connections": 2}, "detection": {"thresholds": {"Min1": 3}}})
    changed = config.with_overrides({"detection": {"thresholds": {"Min5": 4}}, "timeframes": ["Min5"]})
    assert changed.websocket.max_connections == 2
    assert changed.detection.thresholds == {"Min1": 3, "Min5": 4, "Min15": 6, "Min60": 5}
    assert changed.timeframes == [Timeframe.Min5]
    assert config.timeframes == list(config.detection.thresholds)


def test_addresses_lose_the_slash_at_their_end_so_that_paths_can_follow() -> None:
    config = load_config(overrides={"rest": {"base_url": "http://127.0.0.1:8700/"}})
    assert config.rest.base_url == "http://127.0.0.1:8700"


def test_the_briefs_websocket_config_is_the_websocket_table_with_its_defaults() -> None:
    assert Config().websocket.model_dump() == WEBSOCKET_CONFIG
    assert {"max_connections", "max_subscriptions_per_connection", "ping_interval"} <= set(WEBSOCKET_CONFIG)


def test_a_channel_can_be_made_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {
        "TYPE": "console",
        "KINDS": "alert,operational",
        "PINNED_ONLY": "true",
        "LEVEL": "strong",
    }.items():
        monkeypatch.setenv(f"PERPWATCH_ALERTS__CHANNELS__PHONE__{key}", value)
    channel = load_config().alerts.channels["phone"]
    assert channel.route("UTC").kinds == {NoticeKind.ALERT, NoticeKind.OPERATIONAL}
    assert (channel.type, channel.pinned_only, channel.level) == ("console", True, Level.STRONG)


def test_a_secret_is_read_from_where_the_configuration_says_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", " secret ")
    (tmp_path / "token").write_text("secret\n", encoding="utf-8")
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert (
        read_secret("k.token", None, "TOKEN", tmp_path) == read_secret("k.token", "token", None, tmp_path) == "secret"
    )
    for file, variable, key, right in (
        (None, None, "k.token", "one of k.token_file and k.token_env"),
        ("token", "TOKEN", "k.token", "one of k.token_file and k.token_env"),
        (None, "NOTHING", "k.token_env", "no such variable"),
        ("nothing", None, "k.token_file", "No such file"),
        ("empty", None, "k.token_file", "empty"),
    ):
        with pytest.raises(ConfigurationError, match=right) as refused:
            read_secret("k.token", file, variable, tmp_path)
        assert refused.value.key == key
        assert "secret" not in str(refused.value)
