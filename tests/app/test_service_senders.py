"""From the configuration to senders of webhooks and of apprise URLs; what is secret stays so."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.app.alerts_config import AppriseChannel, WebhookChannel
from perpwatch.app.config import load_config
from perpwatch.app.service_senders import ServiceSenders
from perpwatch.errors import ConfigurationError
from perpwatch.model import Level
from perpwatch.sim.webhook import WebhookServer

SECRET = "hush-hush-hush-hush"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "short").write_text("hush")
    (tmp_path / "mail").write_text("mailto://watch:hush-hush@127.0.0.1:1/?from=me@example.com&to=me@example.com\n")
    (tmp_path / "telegram").write_text("tgram://123456789:hush-hush/42")
    monkeypatch.setenv("WATCH_HOOK", "http://127.0.0.1:1/hush-hush")
    monkeypatch.setenv("WATCH_NONSENSE", "hush-hush")
    return tmp_path


def channel(**keys: Any) -> Any:
    """The settings of one channel, read as all are."""
    return load_config(None, {"alerts": {"channels": {"robot": keys}}}).alerts.channels["robot"]


def told(number: int) -> Notice:
    key = f"test:{number}"
    return Notice(key=key, thread=key, kind=NoticeKind.TEST, time_ms=1, level=Level.NOTICE)


def webhook(**keys: Any) -> WebhookChannel:
    made = channel(type="webhook", **keys)
    assert isinstance(made, WebhookChannel)
    return made


def apprise(**keys: Any) -> AppriseChannel:
    made = channel(type="apprise", **keys)
    assert isinstance(made, AppriseChannel)
    return made


async def test_a_webhook_is_sent_no_faster_than_it_takes_whoever_sends(folder: Path) -> None:
    async with WebhookServer(SECRET, limit=(4, 1.0)) as server:
        settings = webhook(url=server.url, secret_file="secret", requests_per_second=4)
        senders = ServiceSenders(folder)
        # Two channels with one address share what it takes.
        two = [senders.webhook(name, settings) for name in ("one", "other")]
        began_s = time.monotonic()
        notices = [
            Notice(key=f"{n}", thread=f"{n}", kind=NoticeKind.TEST, time_ms=1, level=Level.NOTICE) for n in range(10)
        ]
        await asyncio.gather(*(two[n % 2].send(Card("x"), [notice]) for n, notice in enumerate(notices)))
        for sender in two:
            await sender.close()
        assert len(server.messages) == 10
        assert server.exceeded == 0
        assert 1.9 < time.monotonic() - began_s < 10.0


async def test_an_address_that_is_a_secret_comes_from_the_environment_or_a_file(folder: Path) -> None:
    sender = ServiceSenders(folder).webhook("robot", webhook(url_env="WATCH_HOOK", secret_file="secret", updates=True))
    assert sender.can_edit
    assert "hush" not in sender.destination
    mail = ServiceSenders(folder).apprise("robot", apprise(url_file="mail"))
    assert (mail.destination, mail.takes_pictures) == ("mailto", True)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "give one of url, url_file and url_env"),
        ({"url": "https://host/", "url_env": "WATCH_HOOK"}, "give one of url, url_file and url_env"),
        ({"url": "https://me:hush@host/"}, "no user and password"),
        ({"url": "https://host/"}, "give one of alerts.channels.robot.secret_file and"),
        ({"url": "https://host/", "secret_file": "absent"}, "a file that can be read"),
        ({"url": "https://host/", "secret_file": "short"}, "a secret of at least 16 characters"),
        ({"url": "ftp://host/", "secret_file": "secret"}, "give an address like https://host/path"),
        ({"url_env": "WATCH_NONSENSE", "secret_file": "secret"}, "give an address like https://host/path"),
        ({"url": "https://host/", "secret_file": "secret", "ca_file": "absent"}, "ca_file cannot be read"),
        ({"url": "https://host/", "secret_file": "secret", "ca_file": "secret"}, "ca_file cannot be read"),
        ({"url": "https://host/", "secret_file": "secret", "requests_per_second": 0}, "greater than 0"),
        ({"url": "https://host/", "secret": "hush"}, "no such setting; did you mean secret_env"),
    ],
)
def test_a_webhook_that_cannot_be_is_a_clear_error_without_the_secret(
    folder: Path, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"alerts\.channels\.robot") as error:
        ServiceSenders(folder).webhook("robot", webhook(**keys))
    told = "".join(traceback.format_exception_only(error.value))
    assert words in told
    assert "hush" not in told


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "give one of alerts.channels.robot.url_file and alerts.channels.robot.url_env"),
        ({"url_file": "telegram"}, 'for Telegram there is type = "telegram"'),
        ({"url_env": "WATCH_NONSENSE"}, "give an apprise URL"),
        ({"url": "ntfy://hush"}, "no such setting"),
        ({"url_file": "mail", "messages_per_minute": 0}, "greater than or equal to 1"),
    ],
)
def test_an_apprise_url_that_cannot_be_is_a_clear_error_without_the_url(
    folder: Path, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"alerts\.channels\.robot") as error:
        ServiceSenders(folder).apprise("robot", apprise(**keys))
    told = "".join(traceback.format_exception_only(error.value))
    assert words in told
    assert "hush" not in told


def test_the_settings_that_are_shown_hold_no_secret(folder: Path) -> None:
    shown = json.dumps(webhook(url_env="WATCH_HOOK", secret_file="secret").model_dump(mode="json"))
    assert "WATCH_HOOK" in shown
    assert "hush" not in shown


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="they need no desktop session")
def test_a_desktop_that_is_not_there_is_said_at_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ConfigurationError, match=r"alerts\.channels\.desk\.type.*notify-send"):
        ServiceSenders(folder).desktop("desk")
