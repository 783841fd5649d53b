"""``perpwatch config``: check or print the settings."""

from __future__ import annotations

from typing import Annotated

import msgspec
import tomli_w
import typer

from perpwatch.app.config import file_in_use, flat, load_config
from perpwatch.app.printing import ConfigOption, Format, console, print_json, print_line, print_rows
from perpwatch.app.senders import folder_of, senders_of

config_app = typer.Typer(help="Check or print the settings.", no_args_is_help=True)


@config_app.command("show")
def config_show(
    config: ConfigOption = None,
    format: Annotated[
        Format, typer.Option("--format", help="table is TOML; csv has one setting a line, as key and JSON value.")
    ] = Format.TABLE,
) -> None:
    """Print every setting as it is in force; as TOML, it is a file that --config takes."""
    settings = load_config(config)
    match format:
        case Format.TABLE:
            print(tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)), end="")
        case Format.JSON:
            print_json(settings.model_dump(mode="json"))
        case Format.JSONL:
            print_line(settings.model_dump(mode="json"))
        case Format.CSV:
            print_rows(
                [
                    {"key": key, "value": msgspec.json.encode(value).decode()}
                    for key, value in flat(settings.model_dump(mode="json")).items()
                ],
                format,
            )


@config_app.command("check")
def config_check(config: ConfigOption = None) -> None:
    """Say whether the settings can be used; exit code 2, with key, value and what would be right, when not.

    Secrets of channels are looked for, too; whether a channel takes them says `perpwatch alerts test`.
    """
    settings = load_config(config)
    senders_of(settings.alerts, folder_of(file_in_use(config)), settings.network.proxy)
    console.print("the configuration is good")
