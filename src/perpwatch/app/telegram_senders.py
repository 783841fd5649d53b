"""From the configuration to the bots of Telegram and their chats."""

from __future__ import annotations

from pathlib import Path

from perpwatch.alert.senders.telegram import TelegramBot, TelegramSender
from perpwatch.app.alerts_config import AlertsConfig, TelegramChannel, read_secret
from perpwatch.errors import ConfigurationError


def telegram_senders(config: AlertsConfig, folder: Path, proxy: str | None = None) -> dict[str, TelegramSender]:
    """A sender for each channel of Telegram; those with the same token share one bot, its limits and its users.

    Args:
        folder: of the configuration, which files with secrets are relative to.
        proxy: of the network, for channels that name none of their own.
    Raises:
        ConfigurationError: a secret is not where it should be, or is none.
    """
    channels = {name: one for name, one in config.channels.items() if isinstance(one, TelegramChannel)}
    places: dict[str, tuple[str, str, str | None]] = {}
    for name, channel in channels.items():
        key = f"alerts.channels.{name}"
        token = read_secret(f"{key}.token", channel.token_file, channel.token_env, folder)
        own = proxy
        if channel.proxy_file is not None or channel.proxy_env is not None:
            own = read_secret(f"{key}.proxy", channel.proxy_file, channel.proxy_env, folder)
        places[name] = token, channel.base_url, own
    bots: dict[tuple[str, str, str | None], TelegramBot] = {}
    for name, (token, base_url, own) in places.items():
        if places[name] in bots:
            continue
        users = {user for other, channel in channels.items() if places[other] == places[name] for user in channel.users}
        try:
            bots[places[name]] = TelegramBot(token, language=config.language, users=users, base_url=base_url, proxy=own)
        except ValueError as error:
            raise ConfigurationError(f"alerts.channels.{name}", "(not shown)", str(error)) from None
    return {
        name: TelegramSender(
            bots[places[name]],
            channel.chat,
            channel.topic,
            is_silent=channel.silent,
            chart_url=channel.chart_url or "",
        )
        for name, channel in channels.items()
    }
