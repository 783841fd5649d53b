"""The message that a person reads, before any channel has spelt it.

What matters stands first: the title is what the notification line of a phone shows (symbol, direction, move, volume,
timeframe), the lines are the reasons in the detector's order of contribution, the footer says how far the data can be
trusted and how late they were. Every figure comes from the notice, so that it can be checked there.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence

import msgspec

from perpwatch.alert.notice import Development, Notice, NoticeKind
from perpwatch.alert.operational import OperationalAlert, Phase, details_text
from perpwatch.alert.outcomes import HIT_HORIZON, Outcome, Score
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.alert.texts import EN, Texts
from perpwatch.model import Direction, Level, Reason, Signal

#: Characters of a title that the lock screen of a phone shows.
TITLE_LENGTH = 45
#: Longest symbol that is shown in a title; listed ones have 20 at the most.
SYMBOL_LENGTH = 24
#: Symbols of a market alert, and notices of a digest, that are named one by one.
MARKET_LINES, DIGEST_LINES = 10, 20
#: Of an episode that is over so many reasons of its alert are said again.
REASONS_AT_END = 2
#: The end of the year 9999, after which there are no dates.
LATEST_MS = 253_402_300_000_000
#: No figure of a market is larger.
LARGEST = 1e15
#: A record of fewer alerts says nothing about a rule.
LEAST_JUDGED = 5

_ARROWS = {Direction.UP: "▲", Direction.DOWN: "▼", Direction.FLAT: "●"}
_TIMES = {Level.NOTICE: 1, Level.STRONG: 2, Level.EXTREME: 3}
#: Figures that only stand in the footer, or are no news for a person.
_UNSPOKEN = frozenset(
    {"turnover", "mean_turnover", "trust", "latency", "range", "cusum", "threshold", "window", "open", "close"}
)


class Card(msgspec.Struct, frozen=True):
    """A message in plain text. Nothing in it is escaped; whoever spells it for a channel escapes all of it."""

    title: str  # fits the notification line of a phone
    lines: tuple[str, ...] = ()  # the reasons, most important first
    footer: str = ""  # trust in the data, latency
    url: str = ""  # the symbol's page at the exchange
    picture: bytes | None = None  # PNG
    link: str = ""  # what to call the page, where a channel can


def card_of(
    notice: Notice,
    texts: Texts = EN,
    zone: datetime.tzinfo = datetime.UTC,
    *,
    exchange: str = "",
    url: str = "",
    score: Score | None = None,
    picture: bytes | None = None,
) -> Card:
    """One notice in words.

    Args:
        zone: of the times that are shown.
        exchange: what people call it.
        url: the symbol's page there.
        score: how the notice's rule did of late; None where it is not known.
    """
    title = title_of(notice, texts)
    if notice.alert is not None:
        lines, footer = (
            _alert_lines(notice, notice.alert, texts, zone, score),
            _footer(notice, notice.alert, texts, zone),
        )
    elif notice.market is not None:
        market = notice.market
        lines, footer = _market_lines(market, texts), _moment(market.time_ms, zone)
    elif notice.operational is not None:
        trouble = notice.operational
        lines, footer = _operational_lines(trouble, texts, zone), _moment(trouble.time_ms, zone)
    else:
        lines, footer = (texts.test,), _moment(notice.time_ms, zone)
    link = texts.page.format(symbol=notice.symbol, exchange=exchange) if url and exchange else ""
    return Card(title, lines, footer, url, picture, link or (notice.symbol if url else ""))


def digest_of(notices: Sequence[Notice], texts: Texts = EN, zone: datetime.tzinfo = datetime.UTC) -> Card:
    """Many notices in one card, the most unusual first, one line each; of a thread only the newest."""
    newest = {notice.thread: notice for notice in sorted(notices, key=lambda notice: notice.time_ms)}
    ranked = sorted(newest.values(), key=_rank, reverse=True)
    title = f"◆ {texts.counted(texts.title_digest, len(ranked))}"
    first = next((one.alert for one in ranked if one.alert is not None), None)
    if first is not None and (move := move_of(first.signal)) is not None:
        symbol = _short_symbol(first.symbol)
        title = _fitted(title, [texts.title_most.format(symbol=symbol, move=texts.percent(move))])
    lines = [
        texts.digest_line.format(time=f"{_time(one.time_ms, zone):%H:%M}", title=title_of(one, texts))
        for one in ranked[:DIGEST_LINES]
    ]
    if len(ranked) > DIGEST_LINES:
        lines.append(texts.digest_rest.format(count=len(ranked) - DIGEST_LINES))
    times = [notice.time_ms for notice in notices]
    footer = f"{_time(min(times), zone):%Y-%m-%d %H:%M} – {_moment(max(times), zone)}" if times else ""
    return Card(title, tuple(lines), footer)


def title_of(notice: Notice, texts: Texts = EN) -> str:
    """What stands on the lock screen; at most ``TITLE_LENGTH`` characters unless the symbol is a very long one."""
    if notice.alert is not None:
        signal = notice.alert.signal
        head = f"{_ARROWS[signal.direction] * _TIMES[signal.level]} {_short_symbol(notice.alert.symbol)}"
        if notice.kind is NoticeKind.TEST:
            head = f"{texts.title_test}: {head}"
        if notice.development is not None:
            return _fitted(*_development_title(head, notice.alert, notice.development, texts))
        return _fitted(*_alert_title(head, notice.alert, texts))
    if notice.market is not None:
        market = notice.market
        return (
            f"◆ {texts.title_market.format(symbols=texts.count(market.symbols), watched=texts.count(market.watched))}"
        )
    if notice.operational is not None:
        trouble = notice.operational
        if trouble.phase is Phase.START:
            return f"⚠ {_capital(texts.troubles[trouble.trouble])}"
        return f"✓ {_capital(texts.troubles_over[trouble.trouble])}"
    return f"✓ {texts.title_test}"


# --- One symbol -------------------------------------------------------------------------------------------------------


def _alert_title(head: str, alert: Alert, texts: Texts) -> tuple[str, list[str], str]:
    """The symbol, what moved, and what else there is room for."""
    signal = alert.signal
    figures = {reason.name: reason.value for reason in _sound(signal)}
    parts: list[str] = []
    move = move_of(signal)
    if move is not None:
        span = texts.span(signal.timeframe.minutes)
        head += f" {texts.title_move.format(move=texts.percent(move), span=span)}"
    if (ratio := figures.get("turnover_ratio")) is not None:
        parts.append(texts.title_volume.format(ratio=texts.times(ratio)))
    if alert.escalation:
        parts.append(texts.title_again)
    if move is None and not parts:
        # A detector that speaks of neither: its own figure is the news.
        for reason in _sound(signal):
            make = _TITLES.get(reason.name)
            if make is not None:
                return head, [make(texts, reason.value)], " "
        parts.append(texts.title_unusual)
        return head, parts, " "
    return head, parts, ", "


def _development_title(head: str, alert: Alert, development: Development, texts: Texts) -> tuple[str, list[str], str]:
    before, now, best = moves(alert, development)
    if before is None:
        head += f" {texts.percent(now)}"
    else:
        head += f" {texts.title_development.format(before=texts.percent(before), now=texts.percent(now))}"
    parts = [texts.title_best.format(best=texts.percent(best)), texts.title_ended] if development.is_over else []
    if development.peak_ratio:
        parts.append(texts.title_peak.format(ratio=texts.times(development.peak_ratio)))
    return head, parts, ", "


def moves(alert: Alert, development: Development) -> tuple[float | None, float, float]:
    """The move as it was told, the one by now and the furthest, all from the price before it began, in percent.

    Where no move was told they are counted from the alert's price, and the first is None.
    """
    sign = -1.0 if alert.signal.direction is Direction.DOWN else 1.0
    told = move_of(alert.signal)
    start = 1.0 + (told or 0.0) / 100.0
    now, best = (100.0 * (start * (1.0 + change) - 1.0) for change in (development.change, sign * development.best))
    return told, now, best


def _alert_lines(
    notice: Notice, alert: Alert, texts: Texts, zone: datetime.tzinfo, score: Score | None
) -> tuple[str, ...]:
    lines: list[str] = []
    if notice.kind is NoticeKind.TEST:
        lines.append(texts.test)
    reasons = reason_lines(alert.signal, texts, zone)
    if notice.development is not None and notice.development.is_over:
        # Whoever reads the end has read the reasons; what it was shall still be seen.
        return tuple(dict.fromkeys(_development_lines(alert, notice.development, texts) + reasons[:REASONS_AT_END]))
    if notice.development is not None:
        lines += _development_lines(alert, notice.development, texts)
    elif alert.escalation:
        after = texts.duration(max(1.0, (alert.time_ms - alert.episode_start_ms) / 1_000.0))
        lines.append(texts.again.format(after=after))
    lines += reasons
    for tag in alert.tags:
        lines += reason_lines(tag, texts, zone)[:1]  # what else was known then is past
    if alert.signal.is_learning:
        lines.append(texts.learning)
    if score is not None and (record := _record(score, texts)):
        lines.append(record)
    return tuple(dict.fromkeys(lines))


def _development_lines(alert: Alert, development: Development, texts: Texts) -> list[str]:
    told, now, best = moves(alert, development)
    figures = {
        "span": texts.duration(max(60.0, (development.time_ms - alert.time_ms) / 1_000.0)),
        "best": texts.percent(best),
        "price": texts.price_text(development.price),
    }
    if development.is_over and development.outcome is not None:
        lines = []  # the outcome has more to say
    elif told is None:
        lines = [texts.developed_no_move.format(change=texts.percent(now), **figures)]
    else:
        lines = [texts.developed.format(now=texts.percent(now), **figures)]
    if development.peak_ratio > alert.ratio:
        lines.append(texts.peak_ratio.format(ratio=texts.times(development.peak_ratio)))
    if development.is_over:
        lines += _outcome_lines(development.outcome, texts)
    return lines


def _outcome_lines(outcome: Outcome | None, texts: Texts) -> list[str]:
    if outcome is None or not outcome.after:
        return [texts.outcome_unknown]
    sign = -1.0 if outcome.direction is Direction.DOWN else 1.0
    after = ", ".join(
        texts.outcome_after.format(span=texts.span(one.minutes), move=texts.percent(100.0 * sign * one.forward))
        for one in outcome.after
    )
    lines = [texts.outcome.format(after=after)]
    if (is_hit := outcome.is_hit) is not None:
        (hour,) = (one for one in outcome.after if one.minutes == HIT_HORIZON)
        best, worst = (texts.percent(100.0 * sign * move) for move in (hour.best, hour.worst))
        lines.append(texts.within_hour.format(best=best, worst=worst))
        line = texts.went_on if is_hit else texts.did_not_go_on
        if (share := outcome.random_hits) is not None:
            line += f"; {texts.by_chance.format(share=_share(share))}"
        lines.append(line)
    return lines


def _record(score: Score, texts: Texts) -> str:
    if score.judged < LEAST_JUDGED:
        return ""
    days = texts.counted(texts.days, score.days)
    line = texts.record.format(rule=score.rule, hits=score.hits, judged=score.judged, days=days)
    if score.lift is not None:
        line += f", {texts.record_lift.format(lift=f'{score.lift:.1f}')}"
    return line


def _footer(notice: Notice, alert: Alert, texts: Texts, zone: datetime.tzinfo) -> str:
    signal = alert.signal
    parts = [texts.trusts[signal.trust]]
    if notice.asset_class is not None and notice.asset_class in texts.classes:
        parts.insert(0, texts.classes[notice.asset_class])
    figures = {reason.name: reason.value for reason in _sound(signal)}
    if signal.is_running and "turnover_ratio" in figures:
        parts.append(texts.running)
    if (latency := figures.get("latency")) is not None:
        parts.append(texts.latency.format(latency=texts.latency_text(latency)))
    parts.append(_moment(alert.time_ms, zone))
    return " · ".join(parts)


# --- Reasons ----------------------------------------------------------------------------------------------------------


def reason_lines(signal: Signal, texts: Texts = EN, zone: datetime.tzinfo = datetime.UTC) -> list[str]:
    """The reasons of a signal in their order, those that belong together in one line.

    A reason that no language has words for stands in the detector's own.
    """
    reasons = _sound(signal)
    figures = {reason.name: reason for reason in reasons}
    lines: list[str] = []
    spoken: set[str] = set()
    for reason in reasons:
        name = reason.name
        if name in spoken or name in _UNSPOKEN or name.startswith("score: "):
            continue
        if (group := _GROUPS.get(name)) is not None:
            names, make = group
            if name == "move" and "build_up" in figures and "move_ratio" not in figures:
                continue  # stands in the line of the build-up
            spoken.update(names)
            if line := make(signal, figures, texts, zone):
                lines.append(line)
        elif reason.text:
            lines.append(_capital(reason.text))
    return lines


def _price_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    price = texts.price_text(signal.price)
    if (move := figures.get("move")) is None:
        line = texts.price_alone.format(price=price)
    else:
        form = texts.price_since_open if signal.detector == "volume_ratio" else texts.price
        span = texts.span(signal.timeframe.minutes)
        line = form.format(move=texts.percent(move.value), span=span, price=price)
    if (times := figures.get("move_ratio")) is not None:
        line += f", {texts.usual_move.format(times=texts.times(times.value))}"
    return line


def _volume_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    line = texts.volume.format(ratio=texts.times(figures["turnover_ratio"].value))
    turnover, mean = figures.get("turnover"), figures.get("mean_turnover")
    if turnover is not None and mean is not None:
        quote = signal.symbol.rpartition("_")[2] if "_" in signal.symbol else ""
        amounts = texts.volume_against.format(
            turnover=texts.money(turnover.value),
            quote=quote,
            span=texts.span(signal.timeframe.minutes),
            mean=texts.money(mean.value),
        )
        line += f": {amounts.replace('  ', ' ')}"
    return line


def _rarity_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    hours = 1.0 / max(figures["rarity"].value, 1e-12) / 60.0
    if hours > 50.0 * 24.0:  # ten times the history is the most that a tail can be believed
        return texts.rare_longest
    if hours >= 36.0:
        return texts.counted(texts.rare_days, round(hours / 24.0))
    return texts.counted(texts.rare_hours, max(1, round(hours)))


def _flow_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    parts = []
    for name, forms in (("trades", texts.trades), ("rush_orders", texts.rush_orders)):
        if name in figures:
            parts.append(texts.counted(forms, round(figures[name].value)))
    if (share := figures.get("taker_buy_share")) is not None:
        parts.append(texts.taker_buys.format(share=_share(share.value / 100.0)))
    return _capital(", ".join(parts))


def _interest_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    change, usual = figures.get("open_interest_change"), figures.get("usual_change")
    if change is None:
        return ""
    line = texts.open_interest.format(change=texts.percent(change.value))
    if usual is not None:
        line += f", {texts.usual_change.format(usual=texts.percent(usual.value, is_signed=False))}"
    return line


def _funding_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    rate, change = figures.get("funding_rate"), figures.get("funding_change")
    if rate is None:
        return ""
    line = texts.funding.format(rate=texts.rate(rate.value))
    if change is not None:
        line += f", {texts.funding_before.format(before=texts.rate(rate.value - change.value))}"
    return line


def _build_up_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    line = texts.build_up.format(hours=texts.times(figures["build_up"].value))
    if (move := figures.get("move")) is not None and "move_ratio" not in figures:
        line += f", {texts.since_it_began.format(move=texts.percent(move.value))}"
    return line


def _score_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    if signal.direction is Direction.DOWN:
        return ""  # the model knows rises alone
    # Never 1.00: nothing is certain.
    line = texts.score.format(score=f"{min(int(100.0 * figures['score'].value) / 100.0, 0.99):.2f}")
    parts = [name.removeprefix("score: ") for name in figures if name.startswith("score: ")]
    if parts:
        line += f", {texts.score_parts.format(parts=', '.join(texts.parts.get(part, part) for part in parts))}"
    return line


def _listing_line(signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo) -> str:
    opening_ms = figures["opening_time"].value
    if not 0.0 < opening_ms < LATEST_MS:
        return texts.new_contract_now
    return texts.new_contract.format(time=f"{_time(opening_ms, zone):%Y-%m-%d %H:%M %Z}")


def _one_figure(
    signal: Signal, figures: dict[str, Reason], texts: Texts, zone: datetime.tzinfo, *, name: str, is_signed: bool
) -> str:
    value = texts.percent(figures[name].value, is_signed=is_signed)
    return str(getattr(texts, name).format(**{name.removeprefix("price_"): value}))


_Line = Callable[[Signal, dict[str, Reason], Texts, datetime.tzinfo], str]
#: Which reasons share a line, and who puts it into words.
_LINES: tuple[tuple[tuple[str, ...], _Line], ...] = (
    (("move", "move_ratio"), _price_line),
    (("turnover_ratio",), _volume_line),
    (("rarity",), _rarity_line),
    (("rush_orders", "trades", "taker_buy_share"), _flow_line),
    (("open_interest_change", "usual_change", "open_interest"), _interest_line),
    (("funding_rate", "funding_change"), _funding_line),
    (("build_up",), _build_up_line),
    (("score",), _score_line),
    (("opening_time",), _listing_line),
    (("rise",), functools.partial(_one_figure, name="rise", is_signed=True)),
    (("price_gap",), functools.partial(_one_figure, name="price_gap", is_signed=True)),
    (("spread",), functools.partial(_one_figure, name="spread", is_signed=False)),
)
_GROUPS = {name: (names, make) for names, make in _LINES for name in names}

#: Titles of signals that have neither a move nor a volume.
_TITLES: dict[str, Callable[[Texts, float], str]] = {
    "opening_time": lambda texts, value: texts.title_new_contract,
    "open_interest_change": lambda texts, value: texts.title_open_interest.format(change=texts.percent(value)),
    "funding_rate": lambda texts, value: texts.title_funding.format(rate=texts.rate(value)),
    "price_gap": lambda texts, value: texts.title_price_gap.format(gap=texts.percent(value)),
    "spread": lambda texts, value: texts.title_spread.format(spread=texts.percent(value, is_signed=False)),
    "build_up": lambda texts, value: texts.title_build_up.format(hours=texts.times(value)),
}


# --- Many, and the watch itself ---------------------------------------------------------------------------------------


def _market_lines(market: MarketAlert, texts: Texts) -> tuple[str, ...]:
    by_symbol = {alert.symbol: alert for alert in reversed(market.alerts)}  # the most unusual of each stays
    ranked = [by_symbol[symbol] for symbol in dict.fromkeys(alert.symbol for alert in market.alerts)]
    up, down = (sum(one.signal.direction is way for one in ranked) for way in (Direction.UP, Direction.DOWN))
    lines = [texts.market_how.format(up=up, down=down)]
    for alert in ranked[:MARKET_LINES]:
        signal = alert.signal
        head = f"{_ARROWS[signal.direction] * _TIMES[signal.level]} {_short_symbol(alert.symbol)}"
        start, parts, join = _alert_title(head, alert, texts)
        lines.append(start + (join + ", ".join(parts) if parts else ""))
    if len(ranked) > MARKET_LINES:
        lines.append(texts.market_rest.format(count=len(ranked) - MARKET_LINES))
    return tuple(lines)


def _operational_lines(trouble: OperationalAlert, texts: Texts, zone: datetime.tzinfo) -> tuple[str, ...]:
    if trouble.phase is Phase.START:
        # Kept by a version that had no details: its text says it, in English.
        what = details_text(trouble.details, texts) or trouble.text
        began = texts.began.format(time=f"{_time(trouble.start_ms, zone):%H:%M:%S}")
        return f"{_capital(what)}, {began}", texts.consequences[trouble.trouble]
    lines = [texts.lasted.format(duration=texts.duration(trouble.duration_s or 0.0))]
    if trouble.repaired_minutes is not None and trouble.unknown_minutes is not None:
        if trouble.repaired_minutes or trouble.unknown_minutes:
            repaired = texts.counted(texts.repaired, trouble.repaired_minutes)
            lines.append(_capital(f"{repaired}, {texts.counted(texts.unknown, trouble.unknown_minutes)}"))
        else:
            lines.append(_capital(texts.nothing_lost))
    return tuple(lines)


def _rank(notice: Notice) -> tuple[int, int, float, int]:
    """Troubles of the watch first, then the market, then symbols by how unusual they are."""
    place = 2 if notice.operational is not None else 1 if notice.market is not None else 0
    ratio = notice.alert.ratio if notice.alert is not None else 0.0
    if notice.development is not None:
        ratio = max(ratio, notice.development.peak_ratio)
    return place, _TIMES[notice.level], ratio, notice.time_ms


# --- Pieces -----------------------------------------------------------------------------------------------------------


def move_of(signal: Signal) -> float | None:
    """The move that is the signal's news, in percent."""
    for reason in _sound(signal):
        if reason.name in ("move", "rise"):
            return reason.value
    return None


def _sound(signal: Signal) -> list[Reason]:
    """The reasons whose figure is one; a detector of somebody's own may divide by nothing."""
    return [reason for reason in signal.reasons if abs(reason.value) < LARGEST]


def _short_symbol(symbol: str) -> str:
    """The coin alone where it is quoted in USDT, as nearly all are."""
    short = symbol.removesuffix("_USDT") or symbol
    return short if len(short) <= SYMBOL_LENGTH else f"{short[: SYMBOL_LENGTH - 1]}…"


def _fitted(head: str, parts: Sequence[str], join: str = ", ") -> str:
    """The head and as many parts as a phone shows."""
    for part in parts:
        longer = f"{head}{join}{part}"
        if len(longer) <= TITLE_LENGTH:
            head = longer
    return head


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _share(share: float) -> str:
    return f"{100.0 * share:.0f} %"


def _time(time_ms: float, zone: datetime.tzinfo) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time_ms / 1_000.0, zone)


def _moment(time_ms: float, zone: datetime.tzinfo) -> str:
    return f"{_time(time_ms, zone):%Y-%m-%d %H:%M:%S %Z}"
