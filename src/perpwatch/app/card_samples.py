"""Cards of what a market of the past would have told, as they would have been sent then.

A pass over candles or trades goes through the engine as a live feed does. What it tells is kept with the picture that
was to be had at that moment, and the end of each episode with the picture of then; a few are chosen at the end, because
only then it is known which are worth looking at.
"""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from perpwatch.alert.card import Card, card_of
from perpwatch.alert.chart import Chart
from perpwatch.alert.drawing import draw
from perpwatch.alert.episodes import Episodes
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.outcomes import DAY_MS, HORIZONS, Outcome, scorecard
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.alert.texts import Language, texts_of
from perpwatch.app.card_maker import RECORD_DAYS, chart_of, joined, window_of
from perpwatch.app.engine import Engine, Step
from perpwatch.app.notices import alert_notice, development_notice, market_notice
from perpwatch.market.candles import roll_up_all
from perpwatch.model import MINUTE_MS, Batch, Candle, Timeframe

#: Minutes kept of each symbol: what the picture of a candle of an hour shows, and the day before it.
KEPT_MINUTES = 5_500
#: What is not shown is let go beyond so many episodes.
MOST_SAMPLES = 5_000


@dataclass(slots=True)
class Moment:
    """A notice with what there was to see when it was told, in each language."""

    notice: Notice
    charts: dict[Language, Chart] = field(default_factory=dict)


@dataclass(slots=True)
class Sample:
    """One episode, or a market alert: everything that was told of it, in order."""

    moments: list[Moment]

    @property
    def first(self) -> Notice:
        return self.moments[0].notice

    @property
    def weight(self) -> tuple[int, float]:
        """How unusual it was."""
        alert = self.first.alert
        return self.first.level.rank, alert.ratio if alert is not None else 0.0


class Samples:
    """Collects what an engine tells; give it every step.

    Args:
        languages: those that cards are wanted in.
    """

    def __init__(self, engine: Engine, languages: Sequence[Language], zone: datetime.tzinfo = datetime.UTC) -> None:
        self._engine = engine
        self._languages = languages
        self._zone = zone
        self._minutes: dict[str, deque[Candle]] = {}
        self._episodes = Episodes()
        self._samples: dict[str, Sample] = {}  # by thread
        self._outcomes: list[Outcome] = []

    def on_step(self, batch: Batch, step: Step) -> None:
        """Take what a batch led to."""
        for alert in step.alerts:
            if isinstance(alert, MarketAlert):
                self._keep(market_notice(alert))
            else:
                told = _without_latency(alert)
                self._keep(alert_notice(told, self._episodes.told(told)))
        for candle in step.outcome.closed:
            if candle.timeframe is Timeframe.Min1:
                self._minutes.setdefault(candle.symbol, deque(maxlen=KEPT_MINUTES)).append(candle)
        self._outcomes += step.outcomes
        now_ms = self._engine.now_ms
        for developed in self._episodes.follow(step.signals, step.outcome.closed, step.outcomes, now_ms):
            self._keep(development_notice(developed))

    def chosen(self, count: int) -> list[Sample]:
        """Some worth looking at, by time, each of another symbol as long as there are enough.

        The market's, where there is one; half of them the most unusual ones, and half spread over the rest.
        """
        ranked = sorted(self._samples.values(), key=lambda sample: sample.weight, reverse=True)
        market = [sample for sample in ranked if sample.first.market is not None][:1]
        by_symbol: dict[str, Sample] = {}
        for sample in ranked:
            if sample.moments[-1].notice.development is not None:
                by_symbol.setdefault(sample.first.symbol, sample)
        single = list(by_symbol.values())
        strongest = single[: max(0, count // 2 - len(market))]
        rest = single[len(strongest) :]
        wanted = min(count - len(market) - len(strongest), len(rest))
        ordinary = [rest[(2 * number + 1) * len(rest) // (2 * wanted)] for number in range(wanted)]
        chosen = market + strongest + ordinary
        chosen += [sample for sample in ranked if all(sample is not one for one in chosen)][: count - len(chosen)]
        return sorted(chosen[:count], key=lambda sample: sample.first.time_ms)

    def card(self, moment: Moment, language: Language, *, exchange: str, url: str) -> Card:
        """The card as it would have been sent, with the rule's record of then."""
        notice = moment.notice
        known_ms = notice.time_ms - HORIZONS[-1] * MINUTE_MS
        outcomes = [one for one in self._outcomes if one.rule == notice.rule and one.time_ms < known_ms]
        score = next(iter(scorecard(outcomes, notice.time_ms, (RECORD_DAYS,))), None)
        chart = moment.charts.get(language)
        picture = draw(chart) if chart is not None else None
        texts = texts_of(language)
        return card_of(notice, texts, self._zone, exchange=exchange, url=url, score=score, picture=picture)

    def _keep(self, notice: Notice) -> None:
        sample = self._samples.get(notice.thread)
        if sample is None:
            if notice.kind is NoticeKind.UPDATE:
                return
            sample = self._samples[notice.thread] = Sample([])
        moment = Moment(notice)
        if notice.alert is not None:
            candles = self._candles(notice)
            for language in self._languages:
                if (chart := chart_of(notice, candles, texts_of(language), self._zone)) is not None:
                    moment.charts[language] = chart
        if len(sample.moments) > 1 and sample.moments[-1].notice.kind is NoticeKind.UPDATE:
            sample.moments[-1] = moment  # a message is edited, and only the last edit stays
        else:
            sample.moments.append(moment)
        if len(self._samples) > MOST_SAMPLES:
            del self._samples[min(self._samples, key=lambda thread: self._samples[thread].weight)]

    def _candles(self, notice: Notice) -> list[Candle]:
        timeframe, start_ms, _ = window_of(notice)
        kept = [one for one in self._minutes.get(notice.symbol, ()) if one.open_time_ms >= start_ms - DAY_MS]
        book = self._engine.book
        series = book.series.get(notice.symbol)
        now = book.minutes_so_far(series) if series is not None else []
        return joined(roll_up_all(kept, timeframe, until_ms=self._engine.now_ms), now, timeframe)


def _without_latency(alert: Alert) -> Alert:
    """Nothing was received: what the past says of its own lateness is not so."""
    signal = alert.signal
    reasons = tuple(reason for reason in signal.reasons if reason.name != "latency")
    return replace(alert, signal=replace(signal, reasons=reasons))
