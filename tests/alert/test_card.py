"""What a person reads."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cards import NOW_MS, SIGNAL, alert, notice, signal
from perpwatch.alert import card as module
from perpwatch.alert.card import DIGEST_LINES, MARKET_LINES, TITLE_LENGTH, Card, title_of
from perpwatch.alert.notice import Development, Notice, NoticeKind
from perpwatch.alert.operational import OperationalAlert, OperationalWatch, Phase, Snapshot, Trouble
from perpwatch.alert.outcomes import Excursion, Outcome, Score
from perpwatch.alert.policy import MarketAlert
from perpwatch.alert.texts import EN, RU, Texts
from perpwatch.detect.build_up import BuildUp
from perpwatch.detect.listing import NewListing
from perpwatch.figures import NO_BREAK
from perpwatch.model import MINUTE_MS, Contract, ContractUpdate, Direction, Level, Reason, Timeframe, Trust


def spaced(card: Card) -> Card:
    """With ordinary spaces where a line must not break."""
    lines = tuple(line.replace(NO_BREAK, " ") for line in card.lines)
    return replace(
        card, title=card.title.replace(NO_BREAK, " "), lines=lines, footer=card.footer.replace(NO_BREAK, " ")
    )


def card_of(*args: Any, **kwargs: Any) -> Card:
    return spaced(module.card_of(*args, **kwargs))


def digest_of(*args: Any, **kwargs: Any) -> Card:
    return spaced(module.digest_of(*args, **kwargs))


SCORE = Score("default", 30, 61, 58, 34, 34 / 58, 0.33, 1.8, 1.2, 2.4, ())
OUTCOME = Outcome(
    key="k",
    rule="default",
    symbol="BEAT_USDT",
    time_ms=NOW_MS,
    direction=Direction.UP,
    price=0.0123456,
    volatility=0.001,
    after=(Excursion(5, 0.03, 0.05, -0.01), Excursion(60, -0.01, 0.08, -0.02), Excursion(240, -0.04, 0.08, -0.06)),
    random=((Excursion(60, 0.01, 0.2, 0.0),), (Excursion(60, 0.0, 0.001, 0.0),)),
)


def test_an_alert_in_english() -> None:
    card = card_of(notice(alert()), EN, exchange="MEXC", url="https://x/BEAT_USDT", score=SCORE)
    assert card.title == "▲▲ BEAT +6.04 % in 1 min, vol 12.6×"
    assert card.lines == (
        "Price +6.04 % in 1 min to 0.012346, 113× its usual move",
        "Volume 12.6× usual: 3.12M USDT in 1 min against 247k",
        "So much is traded once in about 11 days",
        "214 trades, 31 rush orders, takers bought 78 %",
        "Open interest +2.31 % in 5 to 10 min",
        "Funding +0.0125 % per settlement",
        "Pump score 0.91 of 1, mostly volume, move",
        "Rule default, 30 days: 34 of 58 alerts went on, 1.8× as often as by chance",
    )
    assert card.footer == "live data · candle still open · seen 16 ms after the exchange · 2026-11-25 14:03:22 UTC"
    assert (card.url, card.link) == ("https://x/BEAT_USDT", "BEAT_USDT at MEXC")


def test_an_alert_in_russian_at_local_time() -> None:
    card = card_of(
        notice(alert()), RU, zoneinfo.ZoneInfo("Europe/Moscow"), exchange="MEXC", url="https://x", score=SCORE
    )
    assert card.title == "▲▲ BEAT +6.04 % за 1 мин, объём 12.6×"
    assert card.lines == (
        "Цена +6.04 % за 1 мин до 0.012346, 113× обычного хода",
        "Объём 12.6× обычного: 3.12 млн USDT за 1 мин против 247 тыс.",
        "Такой объём бывает примерно раз в 11 дней",
        "214 сделок, 31 рыночный залп, покупки тейкеров 78 %",
        "Открытый интерес +2.31 % за 5–10 мин",
        "Фандинг +0.0125 % за расчёт",
        "Похоже на памп: 0.91 из 1, главное: объём, движение",
        "Правило default, 30 дней: продолжение у 34 из 58 сигналов, 1.8× от случайного",
    )
    assert (
        card.footer == "данные живые · свеча ещё открыта · замечено через 16 мс после биржи · 2026-11-25 17:03:22 MSK"
    )
    assert card.link == "BEAT_USDT на MEXC"


def test_lines_keep_the_detector_s_order() -> None:
    move, times, ratio, *rest = SIGNAL.reasons
    one = replace(SIGNAL, reasons=(ratio, move, times, *rest))
    assert [line.split()[0] for line in card_of(notice(alert(one))).lines[:2]] == ["Volume", "Price"]


def test_an_escalation_says_that_it_is_one() -> None:
    card = card_of(notice(alert(escalation=1, start_ms=NOW_MS - 12 * MINUTE_MS)))
    assert card.title == "▲▲ BEAT +6.04 % in 1 min, vol 12.6×, again"
    assert card.lines[0] == "Again, 12 min after the first alert: volume has doubled"


def test_a_development_is_counted_from_the_price_before_the_move() -> None:
    development = Development(NOW_MS + 12 * MINUTE_MS, 0.0133, 0.0770, 0.0858, 120.4)
    card = card_of(notice(alert(), NoticeKind.UPDATE, development=development))
    # 1.0604 · 1.077 = 1.142, 1.0604 · 1.0858 = 1.151
    assert card.title == "▲▲ BEAT +6.04 % → +14.2 %, peak vol 120×"
    assert card.lines[:2] == ("After 12 min: +14.2 %, peak +15.1 %, price 0.0133", "Peak volume 120× usual")
    assert card.lines[2:] == card_of(notice(alert())).lines


def test_a_fall_that_goes_on_is_negative_and_so_is_its_peak() -> None:
    one = signal(direction=Direction.DOWN, reasons=(Reason("move", -5.0, "%"),))
    development = Development(NOW_MS + MINUTE_MS, 0.9, -0.1, 0.2, 0.0)
    card = card_of(notice(alert(one), NoticeKind.UPDATE, development=development))
    assert card.title == "▼▼ BEAT −5.00 % → −14.5 %"
    assert card.lines[0] == "After 1 min: −14.5 %, peak −24.0 %, price 0.9"


def test_the_end_says_what_came_of_it() -> None:
    development = Development(NOW_MS + 240 * MINUTE_MS, 0.0118, -0.04, 0.0858, 120.4, is_over=True, outcome=OUTCOME)
    one = notice(alert(), NoticeKind.UPDATE, development=development)
    card = card_of(one)
    assert card.title == "▲▲ BEAT +6.04 % → +1.80 %, peak +15.1 %, over"
    assert card.lines == (
        "Peak volume 120× usual",
        "From the price of the alert: 5 min +3.00 %, 60 min −1.00 %, 4 h −4.00 %",
        "Within the hour +8.00 % at best, −2.00 % at worst",
        "It went on; by chance 50 % do",
        "Price +6.04 % in 1 min to 0.012346, 113× its usual move",
        "Volume 12.6× usual: 3.12M USDT in 1 min against 247k",
    )
    assert card_of(one, RU).title == "▲▲ BEAT +6.04 % → +1.80 %, пик +15.1 %, конец"
    unknown = replace(development, outcome=None)
    card = card_of(notice(alert(), NoticeKind.UPDATE, development=unknown))
    assert "What came of it is not known: data are missing" in card.lines


def test_a_rule_with_few_alerts_has_no_record_yet() -> None:
    card = card_of(notice(alert()), score=replace(SCORE, judged=4, hits=4))
    assert not [line for line in card.lines if "default" in line]


def test_what_was_known_before_stands_beside_the_alert() -> None:
    tag = replace(
        SIGNAL,
        detector=BuildUp.name,
        is_running=False,
        reasons=(Reason("build_up", 3.25, "hours", "..."), Reason("move", 2.1, "%", "..."), Reason("score", 0.1, "")),
    )
    one = replace(alert(), tags=(tag,))
    assert "Busier than usual for 3.25 h before, +2.10 % since it began" in card_of(notice(one)).lines
    assert not [line for line in card_of(notice(one)).lines if "0.10" in line]
    assert "Уже 3.25 ч активнее обычного, +2.10 % с начала" in card_of(notice(one), RU).lines


def test_a_detector_without_words_of_ours_speaks_for_itself() -> None:
    one = signal(reasons=(Reason("moon_phase", 0.5, "", "the moon is half <full>"), Reason("silent", 1.0, "")))
    card = card_of(notice(alert(one)), RU)
    assert card.title == "▲▲ BEAT необычно"
    assert card.lines == ("The moon is half <full>",)


@pytest.mark.parametrize(
    ("reasons", "title", "line"),
    [
        (
            (Reason("open_interest_change", -12.3, "%"), Reason("usual_change", 1.2, "%")),
            "●● BEAT open interest −12.3 %",
            "Open interest −12.3 % in 5 to 10 min, usually ±1.20 %",
        ),
        (
            (Reason("funding_rate", -0.12, "%"), Reason("funding_change", -0.11, "%")),
            "●● BEAT funding −0.12 %",
            "Funding −0.12 % per settlement, it was −0.01 %",
        ),
        (
            (Reason("price_gap", 3.0, "%"),),
            "●● BEAT last price +3.00 % off",
            "Last price +3.00 % from the reference price",
        ),
        ((Reason("spread", 2.5, "%"),), "●● BEAT spread 2.50 %", "Spread 2.50 %"),
    ],
)
def test_other_detectors_have_titles_of_their_own(reasons: tuple[Reason, ...], title: str, line: str) -> None:
    card = card_of(notice(alert(signal(direction=Direction.FLAT, reasons=reasons))))
    assert (card.title, card.lines[0]) == (title, line)


def test_a_new_contract_says_when_it_trades() -> None:
    detector = NewListing()
    opening = datetime.datetime(2026, 11, 26, 10, 0, tzinfo=datetime.UTC)
    contract = Contract("NEW_USDT", "NEW", "USDT", "USDT", 1.0, opening_time_ms=int(opening.timestamp() * 1_000))
    found = detector.observe(ContractUpdate(contract, NOW_MS), NOW_MS * 1_000_000)
    assert found is not None
    card = card_of(notice(alert(found)))
    assert (card.title, card.lines) == (
        "● NEW new contract",
        ("New contract, trades from 2026-11-26 10:00 UTC",),
    )


def test_a_market_alert_names_the_most_unusual_first_and_is_bounded() -> None:
    alerts = tuple(
        alert(signal(f"C{number}_USDT", Direction.UP if number % 3 == 0 else Direction.DOWN)) for number in range(84)
    )
    market = MarketAlert("m", NOW_MS, NOW_MS, (*alerts, alerts[0]), 1_060, 1e-4)
    one = Notice(key="m", thread="m", kind=NoticeKind.MARKET, time_ms=NOW_MS, level=Level.EXTREME, market=market)
    card = card_of(one)
    assert card.title == "◆ Market: 84 of 1,060 at once"
    assert card.lines[:2] == ("▲ 28 up, ▼ 56 down in one minute", "▲▲ C0 +6.04 % in 1 min, vol 12.6×")
    assert len(card.lines) == MARKET_LINES + 2
    assert card.lines[-1] == "and 74 more"
    assert card_of(one, RU).title == "◆ Рынок: 84 из 1 060 сразу"


def operational(one: OperationalAlert) -> Notice:
    return Notice(
        key=one.key,
        thread=one.key,
        kind=NoticeKind.OPERATIONAL,
        time_ms=one.time_ms,
        level=Level.STRONG,
        operational=one,
    )


def test_a_trouble_of_the_watch_says_what_it_means_and_what_it_cost() -> None:
    watch, told = OperationalWatch(), list[OperationalAlert]()
    for second in range(400):
        silence = second if second < 30 else 0.0
        snapshot = Snapshot(now_s=second, time_ms=NOW_MS + 1_000 * second, silence_s=silence, repaired_minutes=1_204)
        told += watch.update(snapshot)
    start, end = map(operational, told)
    card = card_of(start)
    assert card.title == "⚠ Exchange unreachable"
    assert card.lines[0] == "Nothing heard for 15 s, since 14:03:22"
    assert card_of(start, RU).lines == (
        "Ничего не слышно 15 с, с 14:03:22",
        "Рынка не видно. Пропущенное прочтём потом, сигналы о нём опоздают или не придут.",
    )
    assert card_of(end).title == "✓ Exchange reachable again"
    assert card_of(end).lines == ("It lasted 30 s", "Nothing was lost")
    lost = OperationalAlert("k", Trouble.COVERAGE, Phase.END, NOW_MS, NOW_MS, "", 192.0, 1_204, 3)
    assert card_of(operational(lost)).lines == (
        "It lasted 3 min 12 s",
        "1,204 contract minutes were read back, 3 stay unknown",
    )


def test_a_trouble_kept_without_details_is_told_as_it_was_kept() -> None:
    kept = OperationalAlert("k", Trouble.DRIFT, Phase.START, NOW_MS, NOW_MS, "clock drifts: ours is 3 s ahead")
    assert card_of(operational(kept), RU).lines[0] == "Clock drifts: ours is 3 s ahead, с 14:03:22"


def test_a_digest_is_ranked_bounded_and_tells_each_thread_once() -> None:
    small = [notice(alert(signal(f"C{number}_USDT", level=Level.NOTICE), ratio=number)) for number in range(40)]
    extreme = notice(alert(signal("BTC_USDT", level=Level.EXTREME)))
    again = replace(extreme, key="again", time_ms=NOW_MS + 60_000)
    trouble = operational(OperationalAlert("k", Trouble.DRIFT, Phase.END, NOW_MS, NOW_MS, "", 9.0))
    card = digest_of([*small, extreme, trouble, again])
    assert card.title == "◆ 42 alerts, most: BTC +6.04 %"
    assert card.lines[:3] == (
        "14:03 ✓ Clock right again",
        "14:04 ▲▲▲ BTC +6.04 % in 1 min, vol 12.6×",
        "14:03 ▲ C39 +6.04 % in 1 min, vol 12.6×",
    )
    assert len(card.lines) == DIGEST_LINES + 1
    assert card.lines[-1] == "and 22 more, in: perpwatch alerts list"
    assert digest_of(small[:1], RU).title == "◆ 1 сигнал, больше всех C0 +6.04 %"
    assert digest_of([]).lines == ()


def test_a_test_says_that_nothing_has_happened() -> None:
    one = Notice(key="t", thread="t", kind=NoticeKind.TEST, time_ms=NOW_MS, level=Level.NOTICE)
    assert card_of(one).title == "✓ Test"
    assert card_of(one).lines == (EN.test,)
    sample = card_of(notice(alert(), NoticeKind.TEST))
    assert sample.title == "Test: ▲▲ BEAT +6.04 % in 1 min, vol 12.6×"
    assert sample.lines[0] == EN.test


def test_a_fall_is_no_pump() -> None:
    falling = notice(alert(signal(direction=Direction.DOWN)))
    assert not [line for line in card_of(falling).lines if "score" in line]


def test_numbers_and_their_units_stay_in_one_line() -> None:
    card = module.card_of(notice(alert()))
    assert card.title == f"▲▲ BEAT +6.04{NO_BREAK}% in 1{NO_BREAK}min, vol 12.6×"


@pytest.mark.parametrize("texts", [EN, RU], ids=["en", "ru"])
@given(
    move=st.floats(-1e4, 1e4),
    ratio=st.floats(0.01, 1e6),
    timeframe=st.sampled_from([Timeframe.Min1, Timeframe.Min5, Timeframe.Min15, Timeframe.Min60]),
    level=st.sampled_from(Level),
    escalation=st.integers(0, 9),
    change=st.none() | st.floats(-0.99, 50.0),
    is_over=st.booleans(),
    symbol=st.text("ABCXYZ0123", min_size=1, max_size=9).map("{}_USDT".format) | st.just("1000000MOG_USDT"),
)
def test_a_title_fits_a_phone(
    texts: Texts,
    move: float,
    ratio: float,
    timeframe: Timeframe,
    level: Level,
    escalation: int,
    change: float | None,
    is_over: bool,
    symbol: str,
) -> None:
    reasons = (Reason("move", move, "%"), Reason("turnover_ratio", ratio, "x"))
    one = signal(symbol, Direction.UP, timeframe=timeframe, level=level, reasons=reasons)
    development = None
    if change is not None:
        development = Development(NOW_MS, 1.0, change, max(change, 0.0), ratio, is_over)
    title = title_of(notice(alert(one, escalation=escalation), development=development), texts)
    assert len(title) <= TITLE_LENGTH
    assert symbol.removesuffix("_USDT") in title
    assert "%" in title


@given(
    st.text(st.characters(), max_size=300),
    st.text(st.characters(), max_size=300),
    st.lists(
        st.builds(
            Reason,
            name=st.sampled_from([reason.name for reason in SIGNAL.reasons]) | st.text(max_size=20),
            value=st.floats(),
            unit=st.text(max_size=3),
            text=st.text(max_size=50),
        )
    ),
    st.sampled_from(Trust),
)
def test_any_symbol_rule_and_reason_make_a_card(symbol: str, rule: str, reasons: list[Reason], trust: Trust) -> None:
    one = replace(alert(signal(symbol, reasons=tuple(reasons), trust=trust)), rule=rule)
    for texts in (EN, RU):
        card = card_of(notice(one), texts, score=replace(SCORE, rule=rule))
        assert len(card.title) <= TITLE_LENGTH + 40
        digest_of([notice(one)], texts)
