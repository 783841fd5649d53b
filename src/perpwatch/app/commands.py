"""What a person may ask a running watch in a chat, and the answers; no word of it knows which chat it is.

Questions change nothing. What changes something goes through :class:`~perpwatch.app.wishes.Wishes`, and so through the
bot's commands.
"""

from __future__ import annotations

import asyncio
import datetime
import difflib
from collections.abc import Sequence

import msgspec

from perpwatch.alert.buttons import Act, Button, Buttons, Press, reference
from perpwatch.alert.card import Card, reason_lines
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.alert.texts import Language, Texts, texts_of
from perpwatch.app.bot import Bot
from perpwatch.app.command_texts import COMMAND_TEXTS
from perpwatch.app.delivery import Deliveries
from perpwatch.app.health import Monitor
from perpwatch.app.keeper import Keeper
from perpwatch.app.view import MOVE_MINUTES, movers
from perpwatch.app.wishes import Wishes
from perpwatch.errors import ConfigurationError, StoreError
from perpwatch.market.candles import Series
from perpwatch.model import MINUTE_MS, Direction, Signal
from perpwatch.store import DeliveryState, Label

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
#: How far back alerts are known by their short names.
WHY_DAYS = 7
TOP_ROWS, SUGGESTIONS, LAST_ALERTS, MOST_MUTES = 10, 8, 3, 30
MOVES = (1, 5, 15, 60)  # minutes
#: "Less" and "more" of a rule.
LESS, MORE = 0.5, 2.0

#: What people say for "without a limit", and for the chat they are in.
_NO_LIMIT, _HERE = ("off", "no", "нет"), ("here", "здесь", "тут")
_ARROWS = {Direction.UP: "▲", Direction.DOWN: "▼", Direction.FLAT: "●"}


class Answer(msgspec.Struct, frozen=True):
    card: Card
    buttons: Sequence[Sequence[Button]] = ()


class Commands:
    """Answers of one watch in one language.

    Args:
        buttons: of the bot that answers.
        time_zone: of all times that are shown.
        monitor, keeper, deliveries: None where there are none; what needs them says so, or less.
    """

    def __init__(
        self,
        bot: Bot,
        wishes: Wishes,
        buttons: Buttons,
        language: str,
        time_zone: datetime.tzinfo,
        *,
        monitor: Monitor | None = None,
        keeper: Keeper | None = None,
        deliveries: Deliveries | None = None,
    ) -> None:
        self.words = COMMAND_TEXTS[language]
        self._texts: Texts = texts_of(Language(language))
        self._bot = bot
        self._wishes = wishes
        self._buttons = buttons
        self._zone = time_zone
        self._monitor = monitor
        self._keeper = keeper
        self._deliveries = deliveries

    async def answer(self, command: str, argument: str, who: str, here: Sequence[str] = ()) -> Answer:
        """The answer to ``/command argument``; wrong usage and unknown names are answers, too.

        Args:
            here: the channels that tell the chat in which it was asked.
        """
        try:
            match command:
                case "start" | "help":
                    return self._help()
                case "status":
                    return self._status()
                case "top":
                    return self._top()
                case "symbol":
                    return await self._symbol(argument)
                case "rules":
                    return self._rules()
                case "mutes":
                    return self._mutes()
                case "budget":
                    return self._budget(argument, who, here)
                case "why":
                    return await self._why(argument)
            if command.startswith("why_"):  # as it can be tapped under an alert
                return await self._why(command.removeprefix("why_"))
        except (ConfigurationError, StoreError) as error:
            return _plain(self.words.failed.format(error=error))
        return _plain(self.words.unknown.format(command=command[:40]))

    async def press(self, press: Press, who: str) -> str:
        """Do what a button asks for; returns what to say about it."""
        words = self.words
        try:
            match press.act:
                case Act.MUTE_HOUR | Act.MUTE_DAY:
                    length_ms = HOUR_MS if press.act is Act.MUTE_HOUR else DAY_MS
                    until_ms = self._wishes.mute(press.subject, length_ms, who)
                    return words.muted.format(symbol=press.subject, time=self._moment(until_ms))
                case Act.UNMUTE:
                    self._wishes.unmute(press.subject, who)
                    return words.unmuted.format(symbol=press.subject)
                case Act.LESS | Act.MORE:
                    before, now = self._wishes.shift(press.subject, LESS if press.act is Act.LESS else MORE, who)
                    was = "–" if before is None else f"{before:g}"
                    return words.less.format(rule=press.subject, budget=f"{now:g}", before=was)
                case Act.WRONG:
                    return await self._label(press.subject, "wrong", who)
        except (ConfigurationError, StoreError) as error:
            return words.failed.format(error=error)

    # --- Answers ----------------------------------------------------------------------------------------------------

    def _help(self) -> Answer:
        lines = tuple(f"/{command} – {words}" for command, words in self.words.commands.items())
        return Answer(Card(self.words.help_title, lines))

    def _status(self) -> Answer:
        words, texts, engine = self.words, self._texts, self._bot.engine
        told = sum(self._wishes.told_24h(rule.name) for rule in self._wishes.rules)
        lines: list[str] = []
        title, footer = "perpwatch", ""
        if self._monitor is not None:
            health = self._monitor.report()
            title = words.status[health.status]
            age_s, delay_s = health.data.age_s, health.data.delay_s
            known = health.contracts
            lines = [
                words.watched.format(watched=texts.count(known.watched), covered=texts.count(known.covered)),
                words.data_none
                if age_s is None
                else words.data.format(age=texts.latency_text(age_s * 1e3), delay=texts.latency_text(delay_s * 1e3)),
                words.connections.format(
                    open=health.connections.open, wanted=health.connections.wanted, polled=known.polled
                ),
                *(
                    words.since.format(trouble=texts.troubles[one.trouble], time=self._moment(one.since_ms))
                    for one in health.alerts
                ),
                *health.reasons,
            ]
            footer = words.running.format(duration=texts.duration(health.uptime_s))
        lines.append(words.told.format(told=told, signals=texts.count(engine.signals)))
        for one in self._deliveries.status() if self._deliveries is not None else ():
            line = words.channel.format(name=one.name, sent=one.sent, waiting=one.waiting, failed=one.failed)
            if one.latency_s is not None:
                line += words.channel_latency.format(latency=texts.latency_text(one.latency_s * 1e3))
            lines.append(line)
        return Answer(Card(title, tuple(lines), footer))

    def _top(self) -> Answer:
        words, texts = self.words, self._texts
        lines = [
            words.top_line.format(
                arrow=_ARROWS[Direction.UP if move > 0 else Direction.DOWN if move < 0 else Direction.FLAT],
                symbol=symbol,
                move=texts.percent(100.0 * move),
                turnover=texts.money(turnover),
                quote=self._bot.engine.book.series[symbol].contract.quote_coin,
            )
            for symbol, move, turnover in movers(self._bot)[:TOP_ROWS]
        ]
        return Answer(Card(words.top_title.format(minutes=MOVE_MINUTES), tuple(lines or [words.top_none])))

    async def _symbol(self, argument: str) -> Answer:
        words = self.words
        if not argument:
            return _plain(words.usage_symbol)
        found = self._find(argument)
        if not found:
            return _plain(words.symbol_unknown.format(symbol=argument[:40]))
        if len(found) > 1:
            return _plain(words.symbol_ambiguous.format(symbols=", ".join(found[:SUGGESTIONS])))
        symbol = found[0]
        series, engine, texts = self._bot.engine.book.series[symbol], self._bot.engine, self._texts
        ticker, contract = engine.ticker(symbol), series.contract
        price = series.running.close if series.running is not None else None
        if price is None:
            price = ticker.last_price if ticker is not None else 0.0
        moves = [(span, _move(series, price, engine.now_ms, span)) for span in MOVES]
        lines = [
            ", ".join(
                words.moves.format(span=texts.span(span), move=texts.percent(100.0 * move))
                for span, move in moves
                if move is not None
            )
        ]
        if ticker is not None:
            day = contract.turnover(ticker.contracts_24h or 0.0, ticker.amount_24h or 0.0)
            change = texts.percent(100.0 * ticker.change_24h) if ticker.change_24h is not None else "–"
            lines.append(words.day.format(change=change, turnover=texts.money(day), quote=contract.quote_coin))
            if ticker.open_interest is not None and ticker.funding_rate is not None:
                interest = texts.money(contract.notional(ticker.open_interest, price))
                funding = texts.percent(100.0 * ticker.funding_rate)
                lines.append(words.interest.format(interest=interest, coin=contract.quote_coin, funding=funding))
        if symbol in self._bot.analysis.muted:
            lines.append(self._mute_line(symbol, self._wishes.mutes[symbol]))
        last = [one for one in await self._alerts(symbol) if isinstance(one, Alert)][-LAST_ALERTS:]
        lines += [words.last_alerts if last else words.no_alerts]
        lines += [f"{self._moment(one.time_ms)} {self._headline(one.signal)} /why_{reference(one.key)}" for one in last]
        codes = engine.ledger.codes(symbol, engine.now_ms - HOUR_MS, engine.now_ms)
        known = 1.0 - codes.count(0) / len(codes) if codes else 0.0
        source = words.is_streamed if series.is_up else words.is_polled
        footer = f"{words.known.format(share=f'{100 * known:.0f} %')}, {source}"
        acts = [(Act.MUTE_HOUR, symbol), (Act.MUTE_DAY, symbol)]
        if symbol in self._bot.analysis.muted:
            acts = [(Act.UNMUTE, symbol)]
        url = self._bot.adapter.symbol_page(symbol)
        card = Card(f"{symbol} {texts.price_text(price)}", tuple(lines), footer, url, link=symbol)
        return Answer(card, [self._buttons.row(*acts)])

    def _rules(self) -> Answer:
        words, analysis = self.words, self._bot.analysis
        lines: list[str] = []
        for rule in analysis.rules.rules:
            if rule.is_tag:
                lines.append(words.rule_tag.format(rule=rule.name))
                continue
            line = words.rule_told.format(rule=rule.name, told=self._wishes.told_24h(rule.name))
            if rule.alerts_per_day is not None:
                line += f", {words.rule_budget.format(budget=f'{rule.alerts_per_day:g}')}"
            if rule.name in analysis.paused:
                line += f", {words.rule_paused}"
            lines += [line, "· " + f" {rule.join} ".join(str(condition) for condition in rule.conditions)]
        return Answer(Card(words.rules_title, tuple(lines)))

    def _mutes(self) -> Answer:
        mutes = self._wishes.mutes
        if not mutes:
            return _plain(self.words.mutes_none)
        lines = tuple(self._mute_line(symbol, until_ms) for symbol, until_ms in mutes.items())
        rows = [self._buttons.row((Act.UNMUTE, symbol)) for symbol in list(mutes)[:MOST_MUTES]]
        return Answer(Card(self.words.mutes_title, lines), [row for row in rows if row])

    def _budget(self, argument: str, who: str, here: Sequence[str]) -> Answer:
        words = self.words
        if not argument:
            lines = [*self._rules().card.lines]
            if self._deliveries is not None:
                lines += [self._here_line(name, self._deliveries.budget(name)) for name in here]
            return Answer(Card(words.budget_title, (*lines, words.usage_budget)))
        scope, _, number = argument.rpartition(" ")
        scope = scope.strip()
        wanted = None if number.lower() in _NO_LIMIT else _number(number)
        if wanted is not None and not 0.1 <= wanted <= 10_000.0:
            return _plain(words.usage_budget)
        if scope.lower() in _HERE:
            return self._budget_here(wanted, here)
        return self._budget_of_rules(scope, wanted, who)

    def _budget_of_rules(self, name: str, wanted: float | None, who: str) -> Answer:
        words, wishes = self.words, self._wishes
        names = [one.name for one in wishes.rules]
        if name and name not in names:
            return _plain(words.unknown_rule.format(rule=name[:40], rules=", ".join(names)))
        if name:
            wishes.budget(name, wanted, who)
        else:
            wishes.budget_all(wanted, who)
        lines = tuple(
            words.budget_none.format(rule=one.name)
            if one.alerts_per_day is None
            else words.budget_set.format(rule=one.name, budget=f"{one.alerts_per_day:.3g}")
            for one in wishes.rules
            if not name or one.name == name
        )
        return Answer(Card(words.budget_title, lines))

    def _budget_here(self, wanted: float | None, here: Sequence[str]) -> Answer:
        if self._deliveries is None or not here:
            return _plain(self.words.not_told_here)
        budget = None if wanted is None else max(1, round(wanted))
        for name in here:
            self._deliveries.set_budget(name, budget)
        return Answer(Card(self.words.budget_title, tuple(self._here_line(name, budget) for name in here)))

    def _here_line(self, name: str, budget: int | None) -> str:
        words = self.words
        return words.here_none.format(name=name) if budget is None else words.here_set.format(name=name, budget=budget)

    async def _why(self, argument: str) -> Answer:
        words, texts = self.words, self._texts
        if not argument:
            return _plain(words.usage_why)
        alert = await self._alert(argument.lower())
        if alert is None:
            return _plain(words.why_unknown.format(days=WHY_DAYS, id=argument[:40]))
        if isinstance(alert, MarketAlert):
            head = words.why_market.format(
                symbols=alert.symbols, watched=alert.watched, time=self._moment(alert.minute_ms)
            )
            lines = [head, *(f"{_ARROWS[one.signal.direction]} {self._headline(one.signal)}" for one in alert.alerts)]
            return Answer(Card(alert.rule or alert.key, tuple(lines), await self._judged(alert.key)))
        signal = alert.signal
        detector = words.why_detector.format(
            rule=alert.rule,
            detector=signal.detector,
            timeframe=signal.timeframe,
            time=self._moment(signal.open_time_ms),
        )
        lines = [detector, *reason_lines(signal, texts, self._zone), *_figures(signal)]
        if alert.risk > 0.0:
            lines.append(words.why_risk.format(risk=texts.percent(100.0 * alert.risk, is_signed=False)))
        if alert.escalation:
            began = self._moment(alert.episode_start_ms)
            lines.append(words.why_escalation.format(count=alert.escalation, time=began))
        for tag in alert.tags:
            lines += [f"{tag.rule or tag.detector}, {self._moment(tag.event_time_ms)}:", *_figures(tag)]
        # The one among the reasons is free of what our clock is wrong by.
        corrected = (one.value for one in signal.reasons if one.name == "latency")
        latency_ms = next(corrected, signal.received_time_ns / 1e6 - signal.event_time_ms)
        lines.append(words.why_latency.format(latency=texts.latency_text(latency_ms), told=self._moment(alert.time_ms)))
        lines += await self._on_channels(alert)
        title = f"{_ARROWS[signal.direction]} {self._headline(signal)}"
        url = self._bot.adapter.symbol_page(alert.symbol)
        footer = ", ".join(part for part in (texts.trusts[signal.trust], await self._judged(alert.key)) if part)
        return Answer(Card(title, tuple(lines), footer, url, link=alert.symbol))

    # --- Pieces -----------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> list[str]:
        """The watched symbol that somebody may mean, or the ones."""
        symbols = self._bot.engine.book.series
        name = name.upper().lstrip("$#").replace("/", "_").replace("-", "_")
        for exact in (name, f"{name}_USDT"):
            if exact in symbols:
                return [exact]
        begins = [symbol for symbol in self._bot.watched if symbol.startswith(name) and symbol in symbols]
        without = {symbol.replace("_", ""): symbol for symbol in symbols}
        if name in without:
            return [without[name]]
        return begins or [without[one] for one in difflib.get_close_matches(name, without, SUGGESTIONS)]

    def _mute_line(self, symbol: str, until_ms: int | None) -> str:
        if until_ms is None:
            return self.words.muted_for_good.format(symbol=symbol)
        return self.words.muted_until.format(symbol=symbol, time=self._moment(until_ms))

    def _headline(self, signal: Signal) -> str:
        texts, parts = self._texts, list[str]()
        for reason in signal.reasons:
            if reason.name == "move":
                span = texts.span(signal.timeframe.minutes)
                parts.append(texts.title_move.format(move=texts.percent(reason.value), span=span))
            elif reason.name == "turnover_ratio":
                parts.append(texts.title_volume.format(ratio=texts.times(reason.value)))
        return f"{signal.symbol} {', '.join(parts)}".rstrip()

    async def _alerts(self, symbol: str) -> list[Alert | MarketAlert]:
        """Alerts of a symbol in the last day, oldest first; from the store where there is one."""
        since_ms = self._bot.engine.now_ms - DAY_MS
        known: dict[str, Alert | MarketAlert] = {}
        if self._keeper is not None:
            rows = await asyncio.to_thread(self._keeper.reader.alerts, since_ms, symbol, 100)
            known = {row.key: msgspec.json.decode(row.body, type=Alert) for row in rows}
        known |= {
            one.key: one
            for one in self._bot.alerts
            if isinstance(one, Alert) and one.symbol == symbol and one.time_ms >= since_ms
        }
        return sorted(known.values(), key=lambda one: one.time_ms)

    async def _alert(self, name: str) -> Alert | MarketAlert | None:
        """The alert of this short name."""
        for alert in reversed(self._bot.alerts):
            if reference(alert.key) == name:
                return alert
        if self._keeper is None:
            return None
        since_ms = self._bot.engine.now_ms - WHY_DAYS * DAY_MS
        for row in reversed(await asyncio.to_thread(self._keeper.reader.alerts, since_ms, None, 100_000)):
            if reference(row.key) == name:
                if row.symbol:
                    return msgspec.json.decode(row.body, type=Alert)
                return msgspec.json.decode(row.body, type=MarketAlert)
        return None

    async def _label(self, name: str, label: str, who: str) -> str:
        if self._keeper is None:
            return self.words.not_kept
        alert = await self._alert(name)
        if alert is None:
            return self.words.why_unknown.format(days=WHY_DAYS, id=name)
        symbol = alert.symbol if isinstance(alert, Alert) else ""
        now_ms = self._bot.clock.time_ns() // 1_000_000
        self._keeper.writer.put_now(Label(alert.key, who, label, now_ms, symbol, alert.rule))
        return self.words.labelled

    async def _judged(self, key: str) -> str:
        """What people have said of an alert."""
        if self._keeper is None:
            return ""
        labels = await asyncio.to_thread(self._keeper.reader.labels)
        said = [f"{one.label} ({one.who})" for one in labels if one.alert_key == key]
        return self.words.why_label.format(labels=", ".join(said)) if said else ""

    async def _on_channels(self, alert: Alert) -> list[str]:
        """How it went to each channel."""
        if self._keeper is None:
            return []
        reader, since_ms = self._keeper.reader, alert.time_ms
        rows = await asyncio.to_thread(lambda: reader.deliveries(since_ms, until_ms=since_ms + 1))
        return [
            f"{row.channel}: {row.state.value}"
            + (f", {self._texts.latency_text(row.latency_ms)}" if row.latency_ms is not None else "")
            + (f" ({row.why})" if row.why and row.state is not DeliveryState.SENT else "")
            for row in rows
            if row.key == alert.key
        ]

    def _moment(self, time_ms: int) -> str:
        """A time of today as the clock shows it, any other with its day."""
        time = datetime.datetime.fromtimestamp(time_ms / 1_000, self._zone)
        now = datetime.datetime.fromtimestamp(self._bot.clock.time_ns() / 1e9, self._zone)
        return f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%Y-%m-%d %H:%M}"


def _plain(text: str) -> Answer:
    return Answer(Card(text))


def _figures(signal: Signal) -> list[str]:
    """Every number of a signal, as the detector gave it and calls it."""
    return [f"{reason.name} = {reason.value:.6g} {reason.unit}".rstrip() for reason in signal.reasons]


def _move(series: Series, price: float, now_ms: int, minutes: int) -> float | None:
    """The price against the close of the minute that opened so many minutes before the running one; a fraction."""
    opened_ms = now_ms - now_ms % MINUTE_MS - minutes * MINUTE_MS
    close = series.minutes.figure("close", opened_ms)
    return price / close - 1.0 if close else None


def _number(text: str) -> float:
    """A number as people write it, with a point or a comma; NaN for what is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")
