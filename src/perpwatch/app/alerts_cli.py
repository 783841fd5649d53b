"""``perpwatch alerts``: whether channels work, what became of each notice, and another try for what failed."""

from __future__ import annotations

import asyncio
import datetime
import enum
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.policy import Alert
from perpwatch.alert.senders.sender import Sender
from perpwatch.alert.texts import Language
from perpwatch.app.alerts_config import AlertsConfig
from perpwatch.app.bot import adapter_for
from perpwatch.app.card_maker import CardMaker, MarketView, stored_view
from perpwatch.app.cli_commands import Command, lazy_group
from perpwatch.app.config import Config, file_in_use, load_config
from perpwatch.app.ledger_cli import span_ms
from perpwatch.app.painter import Painter
from perpwatch.app.printing import ConfigOption, Format, FormatOption, console, print_rows, stdout
from perpwatch.app.senders import folder_of, senders_of
from perpwatch.app.telegram_cli import chats
from perpwatch.errors import ConfigurationError, DeliveryError, DeliveryFailed, DeliveryRefused, StoreError
from perpwatch.model import Level
from perpwatch.store import Database, Delivery, DeliveryState, Reader, Writer

_CARDS = Command(
    "cards",
    "perpwatch.app.cards_cli:cards",
    "Draw and word the alerts of past markets as they would have been sent, for looking at on a phone.",
)
alerts_app = typer.Typer(
    help="Test channels, and see what became of alerts.", no_args_is_help=True, cls=lazy_group((_CARDS,))
)

#: What a test waits for a channel's answer.
TEST_LIMIT_S = 60.0
#: How long `retry` waits for the store.
WRITE_LIMIT_S = 30.0

ChannelOption = Annotated[
    list[str] | None, typer.Option("--channel", help="Only this one; may be given more than once.", metavar="NAME")
]
SinceOption = Annotated[str, typer.Option(help="Only what was told since 30m, 6h, 7d ago.")]


# --- Test ----------------------------------------------------------------------------------------------------------


class Answer(enum.StrEnum):
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"  # worth another try
    REFUSED = "refused"  # the same again will be refused again


class ChannelTest(msgspec.Struct, frozen=True):
    """What a channel said to a sample."""

    channel: str
    type: str
    answer: Answer
    took_ms: int
    what: str  # the reason where it was not acknowledged


@alerts_app.command("test")
def try_channels(
    config: ConfigOption = None, channel: ChannelOption = None, format: FormatOption = Format.TABLE
) -> None:
    """Send a sample through each channel, and say what happened; exit code 1 when one did not take it.

    The sample is the newest alert that a watch has kept, marked as a test. Filters, quiet hours and budgets do not
    hold it back.
    """
    settings, folder = _settings(config)
    alerts = settings.alerts
    names = _chosen(alerts, channel)
    senders = senders_of(alerts, folder, settings.network.proxy)
    with _kept(settings, config) as reader:
        view = stored_view(adapter_for(settings), reader, lambda: int(time.time() * 1_000))
        results = asyncio.run(_test(alerts, {name: senders[name] for name in names}, _sample(reader), view))
    print_rows(results, format)
    if any(result.answer is not Answer.ACKNOWLEDGED for result in results):
        raise typer.Exit(1)


async def _test(
    alerts: AlertsConfig, senders: dict[str, Sender], sample: Notice, view: MarketView
) -> list[ChannelTest]:
    painter = Painter() if any(sender.takes_pictures for sender in senders.values()) else None
    cards = CardMaker(view, Language(alerts.language), alerts.zone, painter)
    try:
        async with painter or nullcontext():
            if painter is not None:
                await painter.start()
            return await asyncio.gather(
                *(_test_one(alerts, name, sender, sample, cards) for name, sender in senders.items())
            )
    finally:
        for sender in senders.values():  # which may share a connection
            await sender.close()


async def _test_one(alerts: AlertsConfig, name: str, sender: Sender, sample: Notice, cards: CardMaker) -> ChannelTest:
    card = await cards.make([sample], with_picture=sender.takes_pictures)
    answer, what = Answer.ACKNOWLEDGED, ""
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(TEST_LIMIT_S):
            await _send(sender, card, sample)
    except DeliveryError as error:
        answer = Answer.REFUSED if isinstance(error, DeliveryRefused) else Answer.FAILED
        what = error.reason
    except TimeoutError:
        answer, what = Answer.FAILED, f"no answer within {TEST_LIMIT_S:.0f} s"
    took_ms = round((time.monotonic() - began_s) * 1_000)
    return ChannelTest(name, _type_of(alerts, name), answer, took_ms, what)


async def _send(sender: Sender, card: Card, sample: Notice) -> None:
    while True:
        try:
            await sender.send(card, [sample])
            return
        except DeliveryFailed as error:
            # A running watch sends over the same account, and both together must keep its limits.
            if error.retry_after_s is None:
                raise
            await asyncio.sleep(error.retry_after_s)


def _type_of(alerts: AlertsConfig, name: str) -> str:
    return str(alerts.channels[name].type)


def _sample(reader: Reader | None) -> Notice:
    now_ns = time.time_ns()
    key = f"test:{now_ns}"
    sample = Notice(key=key, thread=key, kind=NoticeKind.TEST, time_ms=now_ns // 1_000_000, level=Level.NOTICE)
    alert = _newest_alert(reader)
    if alert is None:
        return sample
    about = {"level": alert.signal.level, "rule": alert.rule, "symbol": alert.symbol, "alert": alert}
    return msgspec.structs.replace(sample, **about)


@contextmanager
def _kept(settings: Config, config: Path | None) -> Iterator[Reader | None]:
    """What a watch has kept; None where there is nothing that can be read."""
    with ExitStack() as stack:
        reader: Reader | None = None
        if settings.store.enabled:
            try:
                reader = Reader(stack.enter_context(_opened(settings, config)))
            except StoreError:
                pass  # any sample will do
        yield reader


def _newest_alert(reader: Reader | None) -> Alert | None:
    if reader is None:
        return None
    try:
        kept = [one for one in reader.alerts(limit=20) if one.symbol]
        return msgspec.json.decode(kept[-1].body, type=Alert) if kept else None
    except (StoreError, msgspec.MsgspecError):
        return None  # any sample will do


# --- List ----------------------------------------------------------------------------------------------------------


@alerts_app.command("list")
def list_deliveries(
    config: ConfigOption = None,
    state: Annotated[
        list[DeliveryState] | None, typer.Option("--state", help="Only those; may be given more than once.")
    ] = None,
    channel: ChannelOption = None,
    since: SinceOption = "24h",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many of the newest.")] = 50,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print what became of each notice on each channel, oldest first, and how long each channel took."""
    settings, _ = _settings(config)
    with _opened(settings, config) as database:
        since_ms = int(time.time() * 1_000) - span_ms(since)
        rows = Reader(database).deliveries(since_ms, state or (), channel or (), limit)
    if format is not Format.TABLE:
        print_rows([_told(row) for row in rows], format)
        return
    _print_deliveries(rows)
    _print_channels(rows)


def _told(row: Delivery) -> dict[str, Any]:
    """A row for machines: everything besides the notice itself and the channel's own receipt."""
    known = msgspec.structs.asdict(row)
    return {key: value for key, value in known.items() if key not in ("body", "receipt")}


def _print_deliveries(rows: Sequence[Delivery]) -> None:
    if not rows:
        console.print("nothing was told")
        return
    table = Table(box=None, header_style="bold")
    for column in ("time (UTC)", "channel", "state", "kind", "symbol", "rule"):
        table.add_column(column)
    for column in ("tries", "latency"):
        table.add_column(column, justify="right")
    table.add_column("why", overflow="fold")
    for row in rows:
        moment = datetime.datetime.fromtimestamp(row.time_ms / 1_000, datetime.UTC)
        latency = f"{row.latency_ms / 1_000:.2f} s" if row.latency_ms is not None else ""
        why = row.why or ("in a digest" if row.digest and row.state is DeliveryState.SENT else "")
        words = row.channel, row.state, row.kind, row.symbol, row.rule
        table.add_row(f"{moment:%m-%d %H:%M:%S}", *words, str(row.attempts), latency, why)
    stdout().print(table)


def _print_channels(rows: Sequence[Delivery]) -> None:
    states: dict[str, Counter[DeliveryState]] = defaultdict(Counter)
    latencies: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        states[row.channel][row.state] += 1
        if row.latency_ms is not None:
            latencies[row.channel].append(row.latency_ms)
    for name, counts in states.items():
        text = ", ".join(f"{counts[state]} {state}" for state in DeliveryState if counts[state])
        if latencies[name]:
            median_s, worst_s = statistics.median(latencies[name]) / 1_000, max(latencies[name]) / 1_000
            text += f"; from signal to acknowledgement {median_s:.2f} s (median), {worst_s:.2f} s at most"
        stdout().print(f"{name}: {text}")


# --- Retry ---------------------------------------------------------------------------------------------------------


@alerts_app.command("retry")
def retry(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Keys of notices, as `list --format json` prints them.")
    ] = None,
    config: ConfigOption = None,
    channel: ChannelOption = None,
    since: SinceOption = "24h",
) -> None:
    """Have what failed tried again: all of it, or the notices that are named.

    A running watch takes it up within seconds, another one when it starts.
    """
    settings, _ = _settings(config)
    with _opened(settings, config) as database:
        since_ms = 0 if keys else int(time.time() * 1_000) - span_ms(since)
        failed = Reader(database).deliveries(since_ms, [DeliveryState.FAILED], channel or (), limit=100_000)
        missing = set(keys or ()) - {row.key for row in failed}
        if missing:
            raise ConfigurationError("KEYS", sorted(missing)[0], "the key of a notice that failed; `list` shows them")
        chosen = [row for row in failed if not keys or row.key in keys]
        if chosen and not asyncio.run(_put(database, [_renewed(row) for row in chosen])):
            raise typer.Exit(1)
    console.print(f"{len(chosen)} are tried again" if chosen else f"nothing has failed in the last {since}")


def _renewed(row: Delivery) -> Delivery:
    return msgspec.structs.replace(
        row, state=DeliveryState.PENDING, attempts=0, not_before_ms=0, digest="", is_doubtful=False
    )


async def _put(database: Database, rows: Sequence[Delivery]) -> bool:
    async with Writer(database) as writer:
        writer.put_now(*rows)
        if await writer.flush(WRITE_LIMIT_S):
            return True
        trouble = writer.trouble
    console.print(f"[bold red]store:[/] nothing was changed: {trouble.text if trouble else 'it takes too long'}")
    return False


# --- Schema --------------------------------------------------------------------------------------------------------


@alerts_app.command("schema")
def schema() -> None:
    """Print the JSON schema of what webhooks receive."""
    from perpwatch.alert.senders.webhook_message import schema_text

    sys.stdout.write(schema_text())


alerts_app.command()(chats)


# --- What they share -----------------------------------------------------------------------------------------------


def _settings(config: Path | None) -> tuple[Config, Path]:
    """The settings, and the folder that files with secrets are relative to."""
    return load_config(config), folder_of(file_in_use(config))


def _chosen(alerts: AlertsConfig, wanted: Sequence[str] | None) -> list[str]:
    if not alerts.channels:
        raise ConfigurationError("alerts.channels", {}, "no channel is configured: see docs/alerts.md")
    for name in wanted or ():
        if name not in alerts.channels:
            raise ConfigurationError("--channel", name, f"one of {', '.join(alerts.channels)}")
    return [name for name in alerts.channels if not wanted or name in wanted]


@contextmanager
def _opened(settings: Config, config: Path | None) -> Iterator[Database]:
    if not settings.store.enabled:
        raise ConfigurationError("store.enabled", False, "what became of alerts is only known where it is kept")
    database = Database.open(settings.store.address(file_in_use(config)), migrate=False)
    try:
        yield database
    finally:
        database.close()
