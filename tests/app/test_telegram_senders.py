from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from perpwatch.alert.card import Card
from perpwatch.app.config import Config, load_config
from perpwatch.app.telegram_senders import telegram_senders
from perpwatch.errors import ConfigurationError, DeliveryFailed

TOKEN, OTHER = "123456789:a-token-of-the-tests-that-nobody-may-see", "987654321:another-token-of-the-tests"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "other").write_text(OTHER)
    monkeypatch.setenv("WATCH_PROXY", "socks5://somebody:hush@127.0.0.1:9")
    return tmp_path


def settings(**channels: dict[str, Any]) -> Config:
    return load_config(
        None, {"alerts": {"channels": {name: {"type": "telegram"} | one for name, one in channels.items()}}}
    )


async def test_channels_with_one_token_are_one_bot_with_the_users_of_all(folder: Path) -> None:
    config = settings(
        phone={"token_file": "token", "chat": 77, "users": [77]},
        topic={"token_file": "token", "chat": -1001, "topic": 5, "users": [78]},
        others={"token_file": "other", "chat": "@a_channel"},
    )
    senders = telegram_senders(config.alerts, folder)
    assert senders["phone"].bot is senders["topic"].bot
    assert senders["phone"].turns is senders["topic"].turns
    assert senders["others"].bot is not senders["phone"].bot
    assert senders["phone"].bot.users == {77, 78}
    assert not senders["others"].bot.buttons.can_act
    assert [one.destination for one in senders.values()] == ["77", "-1001", "@a_channel"]


async def test_a_proxy_that_cannot_be_reached_is_said_without_its_password(folder: Path) -> None:
    config = settings(phone={"token_file": "token", "chat": 77, "proxy_env": "WATCH_PROXY"})
    sender = telegram_senders(config.alerts, folder)["phone"]
    with pytest.raises(DeliveryFailed, match="Proxy") as failed:
        await sender.send(Card("title"), [])
    await sender.close()
    told = "".join(traceback.format_exception(failed.value))
    assert "hush" not in told
    assert TOKEN not in told


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ({"chat": 77}, "give one of alerts.channels.phone.token_file and alerts.channels.phone.token_env"),
        ({"chat": 77, "token_file": "absent"}, "a file that can be read"),
        ({"chat": 77, "token_env": "NO_SUCH_VARIABLE"}, "there is no such variable"),
        ({"chat": 77, "token_env": "WATCH_PROXY"}, "give a token as BotFather does"),
        ({"chat": 77, "token_file": "token", "proxy_file": "token"}, "give a proxy as an address"),
    ],
)
def test_a_secret_that_is_none_is_a_clear_error_without_the_secret(
    folder: Path, channel: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match="phone") as error:
        telegram_senders(settings(phone=channel).alerts, folder)
    told = "".join(traceback.format_exception(error.value))
    assert words in told
    assert "hush" not in told
    assert TOKEN not in told


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ({"chat": "somebody"}, "give the number of a chat"),
        ({"chat": 0}, "give the number of a chat"),
        ({"chat": 7, "topic": 0}, "greater than or equal to 1"),
        ({"chat": 7, "users": ["me"]}, "valid integer"),
        ({"chat": 7, "chart_url": "http://localhost:8765/{symbol}"}, "phones can reach"),
        ({"chat": 7, "base_url": "api.telegram.org"}, "give an address like https://host:port/path"),
        ({"chat": 7, "token": TOKEN}, "did you mean token_env?"),
        ({}, "required"),
    ],
)
def test_a_chat_that_cannot_be_is_refused(channel: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        settings(phone=channel)
    assert words in str(error.value)
    assert TOKEN not in str(error.value)
