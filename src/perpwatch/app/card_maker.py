"""Notices become cards: words, the page at the exchange, how the rule did of late, and the picture."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

import msgspec

from perpwatch.alert.card import Card, card_of, digest_of, move_of, moves
from perpwatch.alert.chart import LEAST_CANDLES, MOST_CANDLES, Bar, Chart, usual_band
from perpwatch.alert.notice import Notice
from perpwatch.alert.outcomes import DAY_MS, Score
from perpwatch.alert.policy import Alert
from perpwatch.alert.texts import Language, Texts, texts_of
from perpwatch.app.alerts_config import AlertsConfig
from perpwatch.app.bot import Bot
from perpwatch.app.painter import Painter
from perpwatch.app.scorecard import scorecard_of
from perpwatch.errors import StoreError
from perpwatch.exchanges.adapter import Adapter
from perpwatch.market.candles import roll_up, roll_up_all
from perpwatch.model import Candle, Finality, Timeframe, Trust
from perpwatch.store import Reader

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Timeframes that a picture may have; the shortest one that shows the whole episode is taken.
TIMEFRAMES = (Timeframe.Min1, Timeframe.Min5, Timeframe.Min15, Timeframe.Min60)
#: Of a picture, this share of the candles stands before the signal, to show what was usual.
LEAD = 0.6
#: A rule's record is over so many days, and is looked up again after so long.
RECORD_DAYS = 30
RECORD_KEPT_S = 600.0


@dataclass(frozen=True, slots=True)
class MarketView:
    """Where a card finds what is not in its notice."""

    exchange: str  # what people call it
    symbol_page: Callable[[str], str]
    #: The newest minutes of a symbol, oldest first, the running one included.
    minutes: Callable[[str], Sequence[Candle]]
    #: Kept candles of a symbol and timeframe that open within a window; asked in a thread of its own.
    past: Callable[[str, Timeframe, int, int], Sequence[Candle]]
    #: How each rule did of late; asked in a thread of its own.
    scores: Callable[[], Sequence[Score]]


class CardMaker:
    """Makes the card of one notice, or the digest of several.

    Args:
        zone: of the times that are shown.
        painter: None where no channel takes pictures.
        is_inline: what is kept is read at once and not in a thread, for loops in virtual time.
    """

    def __init__(
        self,
        view: MarketView,
        language: Language = Language.EN,
        zone: datetime.tzinfo = datetime.UTC,
        painter: Painter | None = None,
        *,
        is_inline: bool = False,
    ) -> None:
        self._view = view
        self._texts = texts_of(language)
        self._zone = zone
        self._painter = painter
        self._is_inline = is_inline
        self._scores: dict[str, Score] = {}
        self._scores_until_s = 0.0

    async def make(self, notices: Sequence[Notice], *, with_picture: bool = False) -> Card:
        """Words always come; a picture where there is one, and never so late that the words would wait for it."""
        if len(notices) != 1:
            return digest_of(notices, self._texts, self._zone)
        (notice,) = notices
        picture = None
        if with_picture and self._painter is not None and (chart := await self._chart(notice)) is not None:
            picture = await self._painter.draw(chart)
        return card_of(
            notice,
            self._texts,
            self._zone,
            exchange=self._view.exchange,
            url=self._view.symbol_page(notice.symbol) if notice.symbol else "",
            score=await self._score(notice.rule),
            picture=picture,
        )

    async def _chart(self, notice: Notice) -> Chart | None:
        if notice.alert is None:
            return None
        timeframe, start_ms, end_ms = window_of(notice)
        minutes = self._view.minutes(notice.symbol)
        try:
            past = await self._read(self._view.past, notice.symbol, timeframe, start_ms - DAY_MS, end_ms)
        except StoreError as error:
            logger.warning("the past of %s cannot be read: %s", notice.symbol, error)
            past = ()
        return chart_of(notice, joined(past, minutes, timeframe), self._texts, self._zone)

    async def _score(self, rule: str) -> Score | None:
        if not rule:
            return None
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._scores_until_s:
            self._scores_until_s = now_s + RECORD_KEPT_S
            try:
                scores = await self._read(self._view.scores)
            except StoreError as error:
                logger.warning("how the rules did cannot be read: %s", error)
            else:
                self._scores = {score.rule: score for score in scores if score.days == RECORD_DAYS}
        return self._scores.get(rule)

    async def _read(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._is_inline:
            return question(*args, **kwargs)
        return await asyncio.to_thread(question, *args, **kwargs)


def card_maker_of(bot: Bot, reader: Reader | None, config: AlertsConfig, painter: Painter | None = None) -> CardMaker:
    """For a running watch, as it is configured.

    Args:
        reader: of its store, where it has one.
    """
    return CardMaker(view_of(bot, reader), Language(config.language), config.zone, painter)


def view_of(bot: Bot, reader: Reader | None) -> MarketView:
    """What a running watch knows, and what its store has kept."""
    book = bot.engine.book

    def minutes(symbol: str) -> Sequence[Candle]:
        series = book.series.get(symbol)
        return book.minutes_so_far(series) if series is not None else ()

    return replace(stored_view(bot.adapter, reader, lambda: bot.engine.now_ms), minutes=minutes)


def stored_view(adapter: Adapter, reader: Reader | None, now_ms: Callable[[], int]) -> MarketView:
    """What a store has kept, without a watch beside it."""

    def past(symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Sequence[Candle]:
        return reader.candles(symbol, timeframe, start_ms, end_ms) if reader is not None else ()

    def scores() -> Sequence[Score]:
        if reader is None:
            return ()
        outcomes = reader.outcomes(now_ms() - RECORD_DAYS * DAY_MS)
        return scorecard_of((outcome.body for outcome in outcomes), now_ms(), (RECORD_DAYS,))

    return MarketView(adapter.name.upper(), adapter.symbol_page, lambda symbol: (), past, scores)


# --- What is in the picture -------------------------------------------------------------------------------------------


def window_of(notice: Notice) -> tuple[Timeframe, int, int]:
    """The candles that a picture shows: their length, and from when to when they open.

    An alert is shown with what has happened since, an episode from before its alert to its newest minute.
    """
    alert = notice.alert
    assert alert is not None, "only what is about a symbol has a picture"
    start_ms, end_ms = alert.episode_start_ms, alert.time_ms
    if notice.development is not None:
        end_ms = max(end_ms, notice.development.time_ms)
    own = alert.signal.timeframe
    for timeframe in TIMEFRAMES:
        length = timeframe.milliseconds
        if length >= own.milliseconds and (end_ms - start_ms) / length <= (1.0 - LEAD) * MOST_CANDLES:
            break
    # What came after the alert while it waited for its turn is shown as far as there is room.
    last_ms = end_ms - end_ms % length
    shown_ms = start_ms - start_ms % length - round(LEAD * MOST_CANDLES) * length
    return timeframe, shown_ms, max(last_ms, shown_ms + (MOST_CANDLES - 1) * length) + length


def joined(past: Sequence[Candle], minutes: Sequence[Candle], timeframe: Timeframe) -> list[Candle]:
    """Kept candles and those at hand as one row, oldest first; where both have one, the whole or newer one counts."""
    candles = {candle.open_time_ms: candle for candle in past}
    if minutes:
        until_ms = minutes[-1].close_time_ms
        longer = roll_up_all(minutes, timeframe, until_ms=until_ms)
        length = timeframe.milliseconds
        last_ms = minutes[-1].open_time_ms - minutes[-1].open_time_ms % length
        if timeframe is not Timeframe.Min1 and last_ms + length > until_ms:
            last = [minute for minute in minutes if minute.open_time_ms >= last_ms]
            longer.append(_running(last, timeframe))
        if longer and longer[0].missing_minutes:
            del longer[0]  # the minutes at hand begin within it
        for candle in longer:
            if candle.open_time_ms not in candles or not candle.missing_minutes:
                candles[candle.open_time_ms] = candle
    return [candles[open_time_ms] for open_time_ms in sorted(candles)]


def _running(minutes: Sequence[Candle], timeframe: Timeframe) -> Candle:
    """The longer candle so far: its minutes to come are not missing."""
    return roll_up([*minutes[:-1], msgspec.structs.replace(minutes[-1], finality=Finality.OPEN)], timeframe)


def chart_of(
    notice: Notice, candles: Sequence[Candle], texts: Texts, zone: datetime.tzinfo = datetime.UTC
) -> Chart | None:
    """The picture of a notice about a symbol, from candles of :func:`window_of`'s timeframe and a day before; None
    where there are too few of them."""
    alert = notice.alert
    assert alert is not None, "only what is about a symbol has a picture"
    timeframe, start_ms, end_ms = window_of(notice)
    signal = alert.signal
    shown = [candle for candle in candles if start_ms <= candle.open_time_ms < end_ms][-MOST_CANDLES:]
    if len(shown) < LEAST_CANDLES:
        return None
    moment = datetime.datetime.fromtimestamp(alert.time_ms / 1_000, zone)
    offset = moment.utcoffset() or datetime.timedelta()
    is_own = timeframe is signal.timeframe
    figures = {reason.name: reason.value for reason in signal.reasons}
    before = [candle for candle in candles if candle.open_time_ms < signal.open_time_ms and _is_known(candle)]
    low, high, mean = usual_band([candle.turnover for candle in before[-DAY_MS // timeframe.milliseconds :]])
    if is_own and "mean_turnover" in figures and high > 0.0:
        mean = figures["mean_turnover"]  # what the words compare with
    return Chart(
        symbol=notice.symbol,
        span=texts.span(timeframe.minutes),
        span_ms=timeframe.milliseconds,
        bars=[_bar(candle) for candle in shown],
        usual=(low, high, mean),
        usual_word=texts.usual_word,
        volume_word=texts.volume_word,
        signal_ms=signal.open_time_ms if "turnover_ratio" in figures else alert.time_ms,
        price=signal.price,
        ratio=f"{texts.times(figures['turnover_ratio'])}×" if is_own and "turnover_ratio" in figures else "",
        group=texts.group,
        move=_move(notice, alert, texts),
        direction=signal.direction,
        utc_offset_s=round(offset.total_seconds()),
        zone=moment.tzname() or "",
    )


def _move(notice: Notice, alert: Alert, texts: Texts) -> str:
    if notice.development is not None:
        return texts.percent(moves(alert, notice.development)[1])
    move = move_of(alert.signal)
    return texts.percent(move) if move is not None else ""


def _is_known(candle: Candle) -> bool:
    return not candle.missing_minutes and candle.trust is not Trust.UNKNOWN


def _bar(candle: Candle) -> Bar:
    prices = candle.open, candle.high, candle.low, candle.close
    return Bar(candle.open_time_ms, *prices, candle.turnover, is_known=_is_known(candle))
