"""Senders of the channels that need no more than an address: webhooks, apprise URLs, this desktop."""

from __future__ import annotations

import math
import time
from pathlib import Path

from perpwatch.alert.pacing import Limit, Pacer
from perpwatch.alert.senders.apprise_url import AppriseSender
from perpwatch.alert.senders.desktop import DesktopSender, desktop_command
from perpwatch.alert.senders.webhook import WebhookSender
from perpwatch.alert.turns import Turns
from perpwatch.app.alerts_config import AppriseChannel, WebhookChannel, read_secret
from perpwatch.errors import ConfigurationError

#: A service takes a few messages at once, but not all of a minute's.
APPRISE_BURST = Limit(1, 1.0)


class ServiceSenders:
    """Makes senders; those to one address share its limits.

    Args:
        folder: of the configuration, which files are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turns: dict[str, Turns] = {}

    def webhook(self, name: str, channel: WebhookChannel) -> WebhookSender:
        """
        Raises:
            ConfigurationError: the address, the secret or the certificates cannot be used.
        """
        key = f"alerts.channels.{name}"
        url = channel.url or read_secret(f"{key}.url", channel.url_file, channel.url_env, self._folder)
        secret = read_secret(f"{key}.secret", channel.secret_file, channel.secret_env, self._folder)
        rate = channel.requests_per_second
        limit = Limit(math.floor(rate), 1.0) if rate >= 1.0 else Limit(1, 1.0 / rate)
        ca_file = self._folder / channel.ca_file if channel.ca_file is not None else None
        try:
            return WebhookSender(
                url,
                secret,
                self._turns_at(url, limit),
                timeout_s=channel.timeout,
                shows_updates=channel.updates,
                ca_file=ca_file,
            )
        except ValueError as error:
            raise ConfigurationError(key, "this table", str(error)) from error

    def apprise(self, name: str, channel: AppriseChannel) -> AppriseSender:
        """
        Raises:
            ConfigurationError: apprise cannot use the URL.
        """
        key = f"alerts.channels.{name}.url"
        url = read_secret(key, channel.url_file, channel.url_env, self._folder)
        turns = self._turns_at(url, APPRISE_BURST, Limit(channel.messages_per_minute, 60.0))
        try:
            return AppriseSender(url, turns, timeout_s=channel.timeout)
        except ValueError as error:
            raise ConfigurationError(key, "(not shown)", str(error)) from error

    def desktop(self, name: str) -> DesktopSender:
        """
        Raises:
            ConfigurationError: this machine shows no notifications.
        """
        try:
            return DesktopSender(desktop_command(), self._turns_at("desktop", Limit(1, 1.0)))
        except ValueError as error:
            raise ConfigurationError(f"alerts.channels.{name}.type", "desktop", str(error)) from error

    def _turns_at(self, address: str, *limits: Limit) -> Turns:
        return self._turns.setdefault(address, Turns(Pacer((), lambda destination: limits), time.monotonic))
