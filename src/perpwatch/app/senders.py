"""From the configuration to what carries messages: one sender for each channel."""

from __future__ import annotations

from pathlib import Path

from perpwatch.alert.senders.console import ConsoleSender
from perpwatch.alert.senders.sender import Sender
from perpwatch.alert.turns import Turns
from perpwatch.app.alerts_config import (
    AlertsConfig,
    AppriseChannel,
    ConsoleChannel,
    DesktopChannel,
    TelegramChannel,
    WebhookChannel,
)
from perpwatch.app.printing import console


def folder_of(config_file: Path | None) -> Path:
    """The folder that files with secrets are relative to."""
    return config_file.absolute().parent if config_file is not None else Path.cwd()


def load_libraries(config: AlertsConfig) -> None:
    """Import what the channels need, which takes seconds; best done while nobody waits for anything yet."""
    kinds = {type(channel) for channel in config.channels.values()}
    if config.enabled and TelegramChannel in kinds:
        import perpwatch.app.telegram_commands
        import perpwatch.app.telegram_senders
    if config.enabled and kinds & {WebhookChannel, AppriseChannel, DesktopChannel}:
        import perpwatch.app.service_senders  # noqa: F401


def senders_of(config: AlertsConfig, folder: Path, proxy: str | None = None) -> dict[str, Sender]:
    """Senders by the name of their channel, in the order of the configuration; none of them has called anybody yet.

    Libraries are imported where a channel needs them: a watch that tells nobody does not carry them.

    Args:
        folder: of the configuration, which files with secrets are relative to.
        proxy: of the network, for channels that name none of their own.
    Raises:
        ConfigurationError: a secret is not where it should be, or a library is not installed.
    """
    channels = config.channels
    senders: dict[str, Sender] = {}
    if any(isinstance(channel, TelegramChannel) for channel in channels.values()):
        from perpwatch.app.telegram_senders import telegram_senders

        senders |= telegram_senders(config, folder, proxy)
    if any(isinstance(channel, WebhookChannel | AppriseChannel | DesktopChannel) for channel in channels.values()):
        from perpwatch.app.service_senders import ServiceSenders

        services = ServiceSenders(folder)
        for name, channel in channels.items():
            match channel:
                case WebhookChannel():
                    senders[name] = services.webhook(name, channel)
                case AppriseChannel():
                    senders[name] = services.apprise(name, channel)
                case DesktopChannel():
                    senders[name] = services.desktop(name)
                case _:
                    pass
    turns = Turns.unlimited()
    senders |= {
        name: ConsoleSender(console, turns) for name, channel in channels.items() if isinstance(channel, ConsoleChannel)
    }
    return {name: senders[name] for name in channels}
