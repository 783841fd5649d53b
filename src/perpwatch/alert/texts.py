"""Every word that a person reads in an alert, in each language.

A language is one value of :class:`Texts`, so that a missing text is an error of types and not of a reader. A text
holds the names of what is put in; counted things have one form for each way in which the language counts.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from perpwatch.figures import MINUS, NO_BREAK, percent_text, price_text, rate_text, times_text
from perpwatch.model import AssetClass, Trust


class Language(enum.StrEnum):
    EN = "en"
    RU = "ru"


#: One form for each way of counting; of a language without several, one.
Forms = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """One language. Names in braces are what is put in, the same ones in every language."""

    form_of: Callable[[int], int]  # which form counts so many

    # Units
    group: str  # between thousands
    second: str
    minute: str
    hour: str
    day: str
    millisecond: str
    thousand: str
    million: str
    billion: str
    days: Forms
    hours: Forms

    # Titles
    title_move: str
    title_volume: str
    title_again: str
    title_new_contract: str
    title_open_interest: str
    title_funding: str
    title_price_gap: str
    title_spread: str
    title_build_up: str
    title_unusual: str
    title_market: str
    title_development: str
    title_peak: str
    title_best: str
    title_ended: str
    title_test: str
    title_digest: Forms
    title_most: str

    # Reasons
    price: str
    price_since_open: str
    usual_move: str
    price_alone: str
    volume: str
    volume_against: str
    rare_days: Forms
    rare_hours: Forms
    rare_longest: str
    trades: Forms
    rush_orders: Forms
    taker_buys: str
    open_interest: str
    usual_change: str
    funding: str
    funding_before: str
    rise: str
    price_gap: str
    spread: str
    new_contract: str
    new_contract_now: str
    build_up: str
    since_it_began: str
    score: str
    score_parts: str
    learning: str
    again: str
    record: str
    record_lift: str

    # How it went on
    developed: str
    developed_no_move: str
    peak_ratio: str
    outcome: str
    outcome_after: str
    within_hour: str
    went_on: str
    did_not_go_on: str
    by_chance: str
    outcome_unknown: str

    # Many at once
    market_how: str
    market_rest: str
    digest_line: str
    digest_rest: str
    test: str

    # Footer
    latency: str
    running: str
    page: str

    # Picture
    volume_word: str
    usual_word: str

    # The watch itself
    began: str
    lasted: str
    repaired: Forms
    unknown: Forms
    nothing_lost: str
    troubles: dict[str, str]  # by value of Trouble
    troubles_over: dict[str, str]
    consequences: dict[str, str]
    details: dict[str, str]  # by name of Detail

    trusts: dict[Trust, str]
    classes: dict[AssetClass, str]  # all but coins
    parts: dict[str, str]  # of a score, by what the model calls them

    def number(self, text: str) -> str:
        """A number of :mod:`perpwatch.figures` as this language groups its digits."""
        return text.replace(",", self.group)

    def times(self, times: float) -> str:
        return self.number(times_text(times))

    def percent(self, percent: float, *, is_signed: bool = True) -> str:
        return self.number(percent_text(percent, is_signed=is_signed))

    def rate(self, percent: float) -> str:
        return self.number(rate_text(percent))

    def price_text(self, price: float) -> str:
        return self.number(price_text(price))

    def count(self, count: int) -> str:
        return self.number(f"{count:,}")

    def counted(self, forms: Forms, count: int, **figures: object) -> str:
        """The form that counts so many, with the number and whatever else is put in."""
        form = forms[min(self.form_of(count), len(forms) - 1)]
        return form.format(count=self.count(count), **figures)

    def span(self, minutes: int) -> str:
        """A timeframe: 1 min, 15 min, 4 h."""
        if minutes % 1440 == 0:
            return f"{minutes // 1440}{NO_BREAK}{self.day}"
        if minutes > 60 and minutes % 60 == 0:
            return f"{minutes // 60}{NO_BREAK}{self.hour}"
        return f"{minutes}{NO_BREAK}{self.minute}"

    def duration(self, seconds: float) -> str:
        """In its two largest units: 3 min 12 s."""
        whole = max(0, round(seconds))
        units = ((86_400, self.day), (3_600, self.hour), (60, self.minute), (1, self.second))
        for (length, unit), (smaller, smaller_unit) in itertools.pairwise(units):
            if whole >= length:
                rest = whole % length // smaller
                return f"{whole // length}{NO_BREAK}{unit}" + (f" {rest}{NO_BREAK}{smaller_unit}" if rest else "")
        return f"{whole}{NO_BREAK}{self.second}"

    def latency_text(self, milliseconds: float) -> str:
        """16 ms, 2.3 s, 5 min 12 s; a clock that runs behind gives negative ones."""
        size = abs(milliseconds)
        sign = MINUS if milliseconds <= -0.5 else ""
        if size < 999.5:
            return f"{sign}{size:.0f}{NO_BREAK}{self.millisecond}"
        if size < 59_950.0:
            return f"{sign}{size / 1_000.0:.1f}{NO_BREAK}{self.second}"
        return f"{sign}{self.duration(size / 1_000.0)}"

    def money(self, amount: float) -> str:
        """Three digits that matter: 812, 246k, 3.12M."""
        for size, unit in ((1e9, self.billion), (1e6, self.million), (1e3, self.thousand)):
            if amount >= 0.9995 * size:
                return f"{self.times(amount / size)}{unit}"
        return f"{amount:.3g}"


def _two_forms(count: int) -> int:
    return 0 if count == 1 else 1


def _three_forms(count: int) -> int:
    """1, 21, 31; 2 to 4, 22; all others. Source: CLDR plural rules of Russian, integers."""
    if count % 10 == 1 and count % 100 != 11:
        return 0
    return 1 if count % 10 in (2, 3, 4) and count % 100 not in (12, 13, 14) else 2


EN = Texts(
    form_of=_two_forms,
    group=",",
    second="s",
    minute="min",
    hour="h",
    day="d",
    millisecond="ms",
    thousand="k",
    million="M",
    billion="B",
    days=("{count} day", "{count} days"),
    hours=("{count} hour", "{count} hours"),
    title_move="{move} in {span}",
    title_volume="vol {ratio}×",
    title_again="again",
    title_new_contract="new contract",
    title_open_interest="open interest {change}",
    title_funding="funding {rate}",
    title_price_gap="last price {gap} off",
    title_spread="spread {spread}",
    title_build_up="busy for {hours} h",
    title_unusual="unusual",
    title_market="Market: {symbols} of {watched} at once",
    title_development="{before} → {now}",
    title_peak="peak vol {ratio}×",
    title_best="peak {best}",
    title_ended="over",
    title_test="Test",
    title_digest=("{count} alert", "{count} alerts"),
    title_most="most: {symbol} {move}",
    price="Price {move} in {span} to {price}",
    price_since_open="Price {move} since the candle opened, to {price}",
    price_alone="Price {price}",
    usual_move="{times}× its usual move",
    volume="Volume {ratio}× usual",
    volume_against="{turnover} {quote} in {span} against {mean}",
    rare_days=("So much is traded once in about {count} day", "So much is traded once in about {count} days"),
    rare_hours=("So much is traded once in about {count} hour", "So much is traded once in about {count} hours"),
    rare_longest="So much is traded less than once in 50 days",
    trades=("{count} trade", "{count} trades"),
    rush_orders=("{count} rush order", "{count} rush orders"),
    taker_buys="takers bought {share}",
    open_interest="Open interest {change} in 5 to 10 min",
    usual_change="usually ±{usual}",
    funding="Funding {rate} per settlement",
    funding_before="it was {before}",
    rise="Price {rise} against its mean",
    price_gap="Last price {gap} from the reference price",
    spread="Spread {spread}",
    new_contract="New contract, trades from {time}",
    new_contract_now="New contract, trades now",
    build_up="Busier than usual for {hours} h before",
    since_it_began="{move} since it began",
    score="Pump score {score} of 1",
    score_parts="mostly {parts}",
    learning="Its history is short, so the test is a simpler one",
    again="Again, {after} after the first alert: volume has doubled",
    record="Rule {rule}, {days}: {hits} of {judged} alerts went on",
    record_lift="{lift}× as often as by chance",
    developed="After {span}: {now}, peak {best}, price {price}",
    developed_no_move="After {span}: {change} since the alert, peak {best}, price {price}",
    peak_ratio="Peak volume {ratio}× usual",
    outcome="From the price of the alert: {after}",
    outcome_after="{span} {move}",
    within_hour="Within the hour {best} at best, {worst} at worst",
    went_on="It went on",
    did_not_go_on="It did not go on",
    by_chance="by chance {share} do",
    outcome_unknown="What came of it is not known: data are missing",
    market_how="▲ {up} up, ▼ {down} down in one minute",
    market_rest="and {count} more",
    digest_line="{time} {title}",
    digest_rest="and {count} more, in: perpwatch alerts list",
    test="This is a test. Nothing has happened on the market, and this channel works.",
    latency="seen {latency} after the exchange",
    running="candle still open",
    page="{symbol} at {exchange}",
    volume_word="Volume",
    usual_word="usual",
    began="since {time}",
    lasted="It lasted {duration}",
    repaired=("{count} contract minute was read back", "{count} contract minutes were read back"),
    unknown=("{count} stays unknown", "{count} stay unknown"),
    nothing_lost="nothing was lost",
    troubles={
        "exchange_unreachable": "exchange unreachable",
        "connections_lost": "connections lost",
        "data_delayed": "data delayed",
        "coverage_low": "coverage low",
        "subscription_limit_met": "subscription limit met",
        "error_rate_high": "many errors",
        "clock_drift": "clock drifts",
        "not_kept": "nothing is kept",
        "channels_failing": "alerts do not arrive",
    },
    troubles_over={
        "exchange_unreachable": "exchange reachable again",
        "connections_lost": "all connections back",
        "data_delayed": "data in time again",
        "coverage_low": "all contracts seen again",
        "subscription_limit_met": "subscription limit as before",
        "error_rate_high": "errors are over",
        "clock_drift": "clock right again",
        "not_kept": "everything is kept again",
        "channels_failing": "alerts arrive again",
    },
    consequences={
        "exchange_unreachable": "No contract is seen. What is missed is read back, and its alerts come late or never.",
        "connections_lost": "Contracts on them are not seen until they are back or moved; the others are.",
        "data_delayed": "Alerts come late until this is over.",
        "coverage_low": "Moves of contracts that are not covered are missed until this is over.",
        "subscription_limit_met": "Contracts without a stream are read by REST, and their alerts come later.",
        "error_rate_high": "Histories and repairs take longer; streams go on.",
        "clock_drift": "Latencies shown are off by as much; candles and alerts are not.",
        "not_kept": "Alerts go on. What was found since would be lost if the program ended now.",
        "channels_failing": "Other channels are not affected. What waits comes in one digest when it works again.",
    },
    details={
        "silent": "nothing heard for {seconds:.0f} s",
        "down": "{down} of {connections} down",
        "down_because": "{down} of {connections} down: {error}",
        "mute": "{mute} of {connections} connections silent for up to {seconds:.0f} s",
        "late": "data is {seconds:.1f} s old when it is judged",
        "coverage": "{percent:g} % of {contracts} contracts are known good, less than {least:g} %",
        "subscriptions": "the exchange takes {limit} subscriptions on a connection, not {configured}",
        "connections": "it allows {limit} connections, not {configured}",
        "polled": "{contracts} contracts are read by REST instead",
        "breakers": "REST fails repeatedly: {endpoints}",
        "requests": "{errors} of {requests} REST requests of the last minute failed",
        "frames": "{bad} of {frames} frames of the last minute were unreadable",
        "ahead": "ours is {seconds:.1f} s ahead of the exchange's; is time synchronisation running?",
        "behind": "ours is {seconds:.1f} s behind the exchange's; is time synchronisation running?",
        "not_kept": "{why}; tried again and again, with everything kept in memory",
        "channels": "{why}",
    },
    trusts={
        Trust.STREAMED: "live data",
        Trust.VERIFIED: "data verified",
        Trust.REPAIRED: "data read back after a gap",
        Trust.QUIET: "no trades, and a witness says so",
        Trust.UNKNOWN: "data not known good",
    },
    classes={
        AssetClass.STOCK: "a stock",
        AssetClass.INDEX: "an index",
        AssetClass.METAL: "a metal",
        AssetClass.COMMODITY: "a commodity",
        AssetClass.FX: "a currency pair",
        AssetClass.OTHER: "not a coin",
    },
    parts={
        "volume": "volume",
        "move": "move",
        "range": "range",
        "5-min return": f"return of 5{NO_BREAK}min",
        "the hour before": "the hour before",
        "move against its usual": "move against its usual",
        "volatility": "volatility",
        "shape of the candle": "shape of the candle",
        "thin trading": "thin trading",
        "volume building up": "volume building up",
    },
)

RU = Texts(
    form_of=_three_forms,
    group=NO_BREAK,
    second="с",
    minute="мин",
    hour="ч",
    day="д",
    millisecond="мс",
    thousand=f"{NO_BREAK}тыс.",
    million=f"{NO_BREAK}млн",
    billion=f"{NO_BREAK}млрд",
    days=("{count} день", "{count} дня", "{count} дней"),
    hours=("{count} час", "{count} часа", "{count} часов"),
    title_move="{move} за {span}",
    title_volume="объём {ratio}×",
    title_again="ещё раз",
    title_new_contract="новый контракт",
    title_open_interest="открытый интерес {change}",
    title_funding="фандинг {rate}",
    title_price_gap="отрыв цены {gap}",
    title_spread="спред {spread}",
    title_build_up="оживление {hours} ч",
    title_unusual="необычно",
    title_market="Рынок: {symbols} из {watched} сразу",
    title_development="{before} → {now}",
    title_peak="пик объёма {ratio}×",
    title_best="пик {best}",
    title_ended="конец",
    title_test="Проверка",
    title_digest=("{count} сигнал", "{count} сигнала", "{count} сигналов"),
    title_most="больше всех {symbol} {move}",
    price="Цена {move} за {span} до {price}",
    price_since_open="Цена {move} с открытия свечи до {price}",
    price_alone="Цена {price}",
    usual_move="{times}× обычного хода",
    volume="Объём {ratio}× обычного",
    volume_against="{turnover} {quote} за {span} против {mean}",
    rare_days=(
        "Такой объём бывает примерно раз в {count} день",
        "Такой объём бывает примерно раз в {count} дня",
        "Такой объём бывает примерно раз в {count} дней",
    ),
    rare_hours=(
        "Такой объём бывает примерно раз в {count} час",
        "Такой объём бывает примерно раз в {count} часа",
        "Такой объём бывает примерно раз в {count} часов",
    ),
    rare_longest="Такой объём бывает реже, чем раз в 50 дней",
    trades=("{count} сделка", "{count} сделки", "{count} сделок"),
    rush_orders=("{count} рыночный залп", "{count} рыночных залпа", "{count} рыночных залпов"),
    taker_buys="покупки тейкеров {share}",
    open_interest="Открытый интерес {change} за 5–10 мин",
    usual_change="обычно ±{usual}",
    funding="Фандинг {rate} за расчёт",
    funding_before="был {before}",
    rise="Цена {rise} к своему среднему",
    price_gap="Последняя цена {gap} к справедливой",
    spread="Спред {spread}",
    new_contract="Новый контракт, торги с {time}",
    new_contract_now="Новый контракт, торги уже идут",
    build_up="Уже {hours} ч активнее обычного",
    since_it_began="{move} с начала",
    score="Похоже на памп: {score} из 1",
    score_parts="главное: {parts}",
    learning="История короткая, поэтому проверка упрощённая",
    again="Снова, через {after} после первого сигнала: объём удвоился",
    record="Правило {rule}, {days}: продолжение у {hits} из {judged} сигналов",
    record_lift="{lift}× от случайного",
    developed="Через {span}: {now}, пик {best}, цена {price}",
    developed_no_move="Через {span}: {change} после сигнала, пик {best}, цена {price}",
    peak_ratio="Пик объёма {ratio}× обычного",
    outcome="От цены сигнала: {after}",
    outcome_after="{span} {move}",
    within_hour="За час в лучшем случае {best}, в худшем {worst}",
    went_on="Движение продолжилось",
    did_not_go_on="Движение не продолжилось",
    by_chance="случайно продолжается {share}",
    outcome_unknown="Чем кончилось, неизвестно: данных нет",
    market_how="▲ {up} вверх, ▼ {down} вниз за одну минуту",
    market_rest="и ещё {count}",
    digest_line="{time} {title}",
    digest_rest="и ещё {count}, все: perpwatch alerts list",
    test="Это проверка. На рынке ничего не случилось, а этот канал работает.",
    latency="замечено через {latency} после биржи",
    running="свеча ещё открыта",
    page="{symbol} на {exchange}",
    volume_word="Объём",
    usual_word="обычно",
    began="с {time}",
    lasted="Длилось {duration}",
    repaired=("{count} минута прочитана заново", "{count} минуты прочитаны заново", "{count} минут прочитано заново"),
    unknown=("{count} осталась неизвестной", "{count} остались неизвестными", "{count} осталось неизвестными"),
    nothing_lost="ничего не потеряно",
    troubles={
        "exchange_unreachable": "биржа недоступна",
        "connections_lost": "соединения потеряны",
        "data_delayed": "данные опаздывают",
        "coverage_low": "видны не все контракты",
        "subscription_limit_met": "достигнут предел подписок",
        "error_rate_high": "много ошибок",
        "clock_drift": "часы расходятся",
        "not_kept": "запись не работает",
        "channels_failing": "сигналы не доходят",
    },
    troubles_over={
        "exchange_unreachable": "биржа снова доступна",
        "connections_lost": "соединения восстановлены",
        "data_delayed": "данные снова вовремя",
        "coverage_low": "снова видны все контракты",
        "subscription_limit_met": "предел подписок прежний",
        "error_rate_high": "ошибки прекратились",
        "clock_drift": "часы снова верны",
        "not_kept": "запись снова работает",
        "channels_failing": "сигналы снова доходят",
    },
    consequences={
        "exchange_unreachable": "Рынка не видно. Пропущенное прочтём потом, сигналы о нём опоздают или не придут.",
        "connections_lost": "Контрактов на них не видно, пока их не вернут или не перенесут; остальные видны.",
        "data_delayed": "Пока это так, сигналы опаздывают.",
        "coverage_low": "Пока это так, движения невидимых контрактов пропускаются.",
        "subscription_limit_met": "Контракты без потока читаются через REST, их сигналы приходят позже.",
        "error_rate_high": "История и восстановление идут медленнее; потоки работают.",
        "clock_drift": "Показанные задержки неверны на столько же; свечи и сигналы верны.",
        "not_kept": "Сигналы приходят. Найденное с этого времени пропадёт, если программа сейчас завершится.",
        "channels_failing": "Другие каналы работают. Накопившееся придёт одной сводкой, когда канал заработает.",
    },
    details={
        "silent": "ничего не слышно {seconds:.0f} с",
        "down": "не работают {down} из {connections}",
        "down_because": "не работают {down} из {connections}: {error}",
        "mute": "{mute} из {connections} соединений молчат до {seconds:.0f} с",
        "late": "данным уже {seconds:.1f} с, когда они оцениваются",
        "coverage": "надёжно известны {percent:g} % из {contracts} контрактов, меньше чем {least:g} %",
        "subscriptions": "биржа принимает {limit} подписок на соединение, а не {configured}",
        "connections": "она допускает {limit} соединений, а не {configured}",
        "polled": "{contracts} контрактов читаются через REST",
        "breakers": "REST раз за разом отказывает: {endpoints}",
        "requests": "{errors} из {requests} запросов REST за последнюю минуту не удались",
        "frames": "{bad} из {frames} кадров за последнюю минуту не читаются",
        "ahead": "наши часы спешат на {seconds:.1f} с против биржи; работает ли синхронизация времени?",
        "behind": "наши часы отстают на {seconds:.1f} с от биржи; работает ли синхронизация времени?",
        "not_kept": "{why}; попытки продолжаются, всё остаётся в памяти",
        "channels": "{why}",
    },
    trusts={
        Trust.STREAMED: "данные живые",
        Trust.VERIFIED: "данные сверены",
        Trust.REPAIRED: "данные прочитаны после разрыва",
        Trust.QUIET: "сделок нет, и это подтверждено",
        Trust.UNKNOWN: "данные ненадёжны",
    },
    classes={
        AssetClass.STOCK: "акция",
        AssetClass.INDEX: "индекс",
        AssetClass.METAL: "металл",
        AssetClass.COMMODITY: "сырьё",
        AssetClass.FX: "валютная пара",
        AssetClass.OTHER: "не монета",
    },
    parts={
        "volume": "объём",
        "move": "движение",
        "range": "размах",
        "5-min return": f"ход за 5{NO_BREAK}минут",
        "the hour before": "прошлый час",
        "move against its usual": "движение против обычного",
        "volatility": "волатильность",
        "shape of the candle": "форма свечи",
        "thin trading": "вялая торговля",
        "volume building up": "нарастание объёма",
    },
)

_TEXTS = {Language.EN: EN, Language.RU: RU}


def texts_of(language: Language) -> Texts:
    """The words of a language."""
    return _TEXTS[language]
