"""The command line. Output for machines goes to standard output, everything else to standard error.

Exit codes: 0 all went well, also when Ctrl-C ended it; 1 the exchange could not be reached or said no; 2 the settings
or the command line cannot be used.
"""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from perpwatch.app.cli_commands import Command, lazy_group
from perpwatch.app.printing import console
from perpwatch.errors import ConfigurationError, ExchangeError, StoreError

#: All of them, in the order of the help. None is imported before it is called: the parts of one are slow to import, and
#: most need few of them.
COMMANDS = (
    Command(
        "run",
        "perpwatch.app.watch_cli:run",
        "Watch the live exchange, or whatever websocket.base_url and rest.base_url point to.",
    ),
    Command(
        "record",
        "perpwatch.app.watch_cli:record",
        "Watch the live exchange like `run`, and record all it sends; nothing else is kept or served.",
    ),
    Command(
        "signals",
        "perpwatch.app.watch_cli:signals",
        "Watch like `run`, and print every signal as a JSON object on a line of standard output.",
    ),
    Command(
        "demo",
        "perpwatch.app.demo_cli:demo",
        "Watch the built-in exchange over real local sockets; nothing leaves this machine.",
    ),
    Command(
        "sim",
        "perpwatch.app.demo_cli:sim",
        "Run the built-in exchange alone, for any client that speaks the protocol of MEXC Futures.",
    ),
    Command(
        "plan",
        "perpwatch.app.exchange_cli:plan",
        "Print the subscription plan: which stream goes where, and what is not streamed and why.",
    ),
    Command(
        "symbols",
        "perpwatch.app.exchange_cli:symbols",
        "List the exchange's contracts, pins first, then the most traded, and whether each is watched.",
    ),
    Command(
        "candles",
        "perpwatch.app.exchange_cli:candles",
        "Print the newest candles of a contract, as the exchange has them; the last one is still open.",
    ),
    Command(
        "ledger",
        "perpwatch.app.ledger_cli:ledger",
        "Say what is known of the minutes since the watch of each symbol began, as the store has it.",
    ),
    Command(
        "scorecard",
        "perpwatch.app.scorecard_cli:scorecard",
        "Say what came of the alerts that a watch gave: per rule, how often the price went on, and against chance.",
    ),
    Command(
        "lab",
        "perpwatch.app.lab_cli:lab",
        "Say what rules would have alerted on recorded markets, which pumps they saw and what came of their alerts.",
    ),
    Command(
        "chaos",
        "perpwatch.app.chaos_cli:chaos",
        "Prove the watch in virtual time: draw a market and faults per seed, and compare what was said with the truth.",
    ),
    Command(
        "replay",
        "perpwatch.app.replay_cli:replay",
        "Run a recording, or candles and trades of the past, through the engine, and write what is found.",
    ),
    Command(
        "diff",
        "perpwatch.app.replay_cli:diff",
        "Show which signals and alerts two runs differ in; exit code 1 when they do.",
    ),
    Command(
        "export",
        "perpwatch.app.export_cli:export_command",
        "Write what is kept as Parquet files, one a day, for DuckDB, Polars and pandas.",
    ),
    Command("alerts", "perpwatch.app.alerts_cli:alerts_app", "Test channels, and see what became of alerts."),
    Command("config", "perpwatch.app.config_cli:config_app", "Check or print the settings."),
    Command("db", "perpwatch.app.db:db_app", "Look at what is kept."),
    Command("rules", "perpwatch.app.rules_cli:rules_app", "Look at rules."),
    Command("model", "perpwatch.app.model_cli:model_app", "Train the score, or look at it."),
)

app = typer.Typer(
    cls=lazy_group(COMMANDS),
    help="Watches every perpetual futures contract of an exchange at once, and says which one behaves unusually.\n\n"
    "Begin with `perpwatch demo`: it needs no network. Settings come from --config FILE, else from perpwatch.toml in "
    "this folder, else they are the defaults; each can also be given in the environment "
    "(PERPWATCH_WEBSOCKET__MAX_CONNECTIONS=5).",
    epilog="Output for machines goes to standard output, everything else to standard error. "
    "Exit codes: 0 fine, 1 the exchange could not be reached or said no, 2 wrong settings or usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """Nothing; an app without it and without commands of its own is none."""


def main() -> None:
    """Entry point: errors that a user can mend become one line and an exit code."""
    try:
        app()
    except ConfigurationError as error:
        console.print(f"[bold red]configuration:[/] {escape(str(error))}", markup=True, soft_wrap=True)
        sys.exit(2)
    except ExchangeError as error:
        console.print(f"[bold red]exchange:[/] {escape(str(error))}", markup=True, soft_wrap=True)
        sys.exit(1)
    except StoreError as error:
        console.print(f"[bold red]store:[/] {escape(str(error))}", markup=True, soft_wrap=True)
        sys.exit(1)
