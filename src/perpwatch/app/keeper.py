"""What of the watch goes into the store, and what of it comes back after a restart.

A minute and what the ledger says of it are written together, so that after a crash the two agree. Nothing here waits:
:meth:`Keeper.note` hands records to the writer, and whoever reads the feed awaits :meth:`Keeper.room` in between.

Long histories wait for each other (:mod:`perpwatch.app.histories`), and all else is written before and between their
slices. Until a slice is handed to the writer, the ledger in the store does not know its minutes: what a crash takes is
read from the exchange again. Whatever is found out about a minute that waits lets its contract go first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from perpwatch.alert.outcomes import HORIZONS, Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.engine import Engine, Step
from perpwatch.app.histories import GATHERED_MINUTES, MAX_WAITING, Histories
from perpwatch.errors import StoreError
from perpwatch.market.candles import Outcome as MinuteOutcome
from perpwatch.market.candles import roll_up_all, with_quiet_minutes
from perpwatch.market.ledger import Ring
from perpwatch.market.repair import REST_SETTLE_MS
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    MINUTE_MS,
    Batch,
    Candle,
    CandleHistory,
    Contract,
    ContractUpdate,
    Timeframe,
    Trust,
)
from perpwatch.store import (
    EMPTY_CODE,
    HOUR_MS,
    TRUST_CODES,
    Alerted,
    AlertOutcome,
    LedgerHour,
    PackedCandles,
    Reader,
    Record,
    Retracted,
    State,
    Writer,
)
from perpwatch.store.finite_json import finite_json

logger = logging.getLogger(__name__)

#: When in a minute the ledger is compared: far from the moment in which minutes close.
COMPARE_AT_MS = 30_000

#: Under this key the state of the alert desk is remembered.
DESK_KEY = "alerts.desk"
#: How long an alert is followed: its last horizon, and a minute at either end.
FOLLOWED_MS = (HORIZONS[-1] + 2) * MINUTE_MS
#: The end of the ledger that is looked at hour by hour each time.
RECENT_MINUTES = 180
#: Records in the writer's queue up to which a slice of histories may follow: what is put next waits for little.
QUIET_QUEUE = 500
#: How long :meth:`Keeper.write_histories` waits for one slice.
SLICE_DEADLINE_S = 10.0

_UNKNOWN, _VERIFIED = TRUST_CODES[Trust.UNKNOWN], TRUST_CODES[Trust.VERIFIED]
_EMPTY_IS_VERIFIED = bytes(_VERIFIED if code == EMPTY_CODE else code for code in range(256))
_LONGER = tuple(timeframe for timeframe in ANALYSED_TIMEFRAMES if timeframe is not Timeframe.Min1)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a start found in the store."""

    symbols: int  # of the ledger
    minutes: int  # known in it, all symbols together
    newest_ms: int  # the newest minute known; 0 when there is none


class Keeper:
    """Keeps what an engine finds.

    Args:
        is_history_kept: also store the candles that are read at the start of each symbol.
    """

    def __init__(self, engine: Engine, reader: Reader, writer: Writer, *, is_history_kept: bool = True) -> None:
        self._engine = engine
        self.reader = reader
        self.writer = writer
        self._is_history_kept = is_history_kept
        self._kept: dict[str, Ring] = {}  # the ledger as the store has it
        # The store gets whole hours, so an hour more at either end than the ledger may know.
        self._kept_minutes = engine.ledger.minutes + 2 * 60
        self._contracts: dict[str, Contract] = {}  # as the store has them
        self._oldest_ms: dict[Timeframe, int] = {}  # candles that were found in the store, or put since
        self._is_oldest_asked: set[Timeframe] = set()
        self._compared_ms = 0
        self._histories = Histories()
        #: What is to be stored together with an alert: who is to be told of it.
        self.beside: Callable[[Alert | MarketAlert], Sequence[Record]] = lambda alert: ()

    # --- Start ------------------------------------------------------------------------------------------------------

    def restore(self, now_ms: int) -> Restored:
        """Give the engine back its ledger; call it before anything is watched.

        Args:
            now_ms: the exchange's time, or our best guess.
        Raises:
            StoreError: the store cannot be read.
        """
        ledger = self._engine.ledger
        for contract in self.reader.contracts():
            self._contracts[contract.symbol] = contract
        minutes, newest_ms = 0, 0
        for hour in self.reader.ledger(now_ms - ledger.minutes * MINUTE_MS, now_ms + HOUR_MS):
            self._ring(hour.symbol).fill(hour.hour_ms // MINUTE_MS, hour.codes)
            ledger.restore(hour.symbol, hour.hour_ms, hour.codes.translate(_EMPTY_IS_VERIFIED))
            minutes += 60 - hour.codes.count(_UNKNOWN)
            newest_ms = max(newest_ms, ledger.newest_ms(hour.symbol) or 0)
        return Restored(len(self._kept), minutes, newest_ms)

    def recall(self, key: str) -> bytes | None:
        """What was remembered under a key: of the policy, a detector, a limit."""
        state = self.reader.state(key)
        return state.value if state else None

    def restore_alerts(self, now_ms: int) -> None:
        """Give the desk back what it has told, so that nothing is told twice and open outcomes are found out."""
        analysis = self._engine.analysis
        state = self.recall(DESK_KEY)
        if state is not None:
            try:
                analysis.desk.restore(state)
            except ValueError as error:
                logger.warning("%s; what was told of late is taken from the alerts themselves", error)
        analysis.remember(self.followed_alerts(now_ms))

    def followed_alerts(self, now_ms: int) -> list[Alert]:
        """What was told of single symbols and may not have come to an end, oldest first.

        Raises:
            StoreError: the store cannot be read.
        """
        recent = _decoded(self.reader.alerts(now_ms - FOLLOWED_MS))
        return [alert for alert in recent if isinstance(alert, Alert)]

    def past(self, symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> list[Candle]:
        """Candles of a symbol that open within the window, oldest first; none when the store cannot be read."""
        if self._histories.holds(symbol, timeframe, start_ms, end_ms):
            self._write_history(symbol)
        try:
            # A start asks for twenty windows of each symbol, on the loop, and a new store has next to none of them.
            oldest_ms = self._oldest(timeframe)
            if end_ms <= oldest_ms:
                return []
            return self.reader.candles(symbol, timeframe, max(start_ms, int(oldest_ms)), end_ms)
        except StoreError as error:
            logger.warning("the past of %s cannot be read: %s", symbol, error)
            return []

    def _oldest(self, timeframe: Timeframe) -> float:
        """No candle in the store, or on its way there, opens before this; infinite when there is none."""
        if timeframe not in self._is_oldest_asked:
            stored_ms = self.reader.oldest_open_time_ms(timeframe)
            self._is_oldest_asked.add(timeframe)
            if stored_ms is not None:
                self._oldest_ms[timeframe] = min(stored_ms, self._oldest_ms.get(timeframe, stored_ms))
        return self._oldest_ms.get(timeframe, math.inf)

    # --- The flow ---------------------------------------------------------------------------------------------------

    def note(self, batch: Batch, step: Step) -> None:
        """Store what a step led to; call it after each step of the engine, in order."""
        outcome, engine = step.outcome, self._engine
        # Most batches leave nothing to store.
        if outcome.closed or outcome.lost or step.signals or step.events or batch.source == "rest":
            self._note_found(batch, step)
        if step.alerts:
            states = {DESK_KEY: engine.analysis.desk.state()}
            for alert in step.alerts:
                self.alert(alert, states)
        for alert_outcome in step.outcomes:
            self.outcome(alert_outcome)
        if engine.now_ms - COMPARE_AT_MS >= self._compared_ms + MINUTE_MS:
            self.compare()
        if self._histories.is_due(engine.now_ms) and self.writer.counters.waiting <= QUIET_QUEUE:
            self._write_slice()

    def _note_found(self, batch: Batch, step: Step) -> None:
        outcome = step.outcome
        records: list[Record] = list(step.signals)
        touched: set[tuple[str, int]] = set()
        is_known = self._engine.ledger.trust
        if self._histories:
            self._write_touched(outcome)
        for span in outcome.lost:
            for open_time_ms in range(span.start_ms, span.end_ms, MINUTE_MS):
                # A minute can be lost and found in one step; the ledger has the last word.
                if is_known(span.symbol, open_time_ms) is Trust.UNKNOWN:
                    self._lose(span.symbol, open_time_ms, records, touched)
        for candle in outcome.closed:
            if candle.timeframe is not Timeframe.Min1:
                records.append(candle)
            elif is_known(candle.symbol, candle.open_time_ms) is not Trust.UNKNOWN:
                records.append(candle)
                self._mark(candle.symbol, candle.open_time_ms, TRUST_CODES[candle.trust], touched)
        if self._is_history_kept and batch.source == "rest":
            for history in batch.histories():
                self._note_history(history, batch.watermark_ms - REST_SETTLE_MS, records, touched)
        for event in step.events:
            if isinstance(event, ContractUpdate):
                self._note_contract(event.contract, records)
        self._put(records, touched)

    def _lose(self, symbol: str, open_time_ms: int, records: list[Record], touched: set[tuple[str, int]]) -> None:
        if self._code(symbol, open_time_ms) != _UNKNOWN:
            records.append(Retracted(symbol, open_time_ms, open_time_ms + MINUTE_MS))
            self._mark(symbol, open_time_ms, _UNKNOWN, touched)

    def _mark(self, symbol: str, open_time_ms: int, code: int, touched: set[tuple[str, int]]) -> None:
        ring, hour_ms = self._ring(symbol), open_time_ms - open_time_ms % HOUR_MS
        # The store gets whole hours: one that has left the ring in part would take away what the store has.
        if hour_ms // MINUTE_MS > ring.newest - self._kept_minutes:
            ring.write(open_time_ms // MINUTE_MS, code)
            touched.add((symbol, hour_ms))

    def _ring(self, symbol: str) -> Ring:
        ring = self._kept.get(symbol)
        if ring is None:
            ring = self._kept[symbol] = Ring(self._kept_minutes)
        return ring

    def _code(self, symbol: str, open_time_ms: int) -> int:
        """What the store has of a minute."""
        ring = self._kept.get(symbol)
        return ring.read(open_time_ms // MINUTE_MS) if ring is not None else _UNKNOWN

    def _note_history(
        self, history: CandleHistory, until_ms: int, records: list[Record], touched: set[tuple[str, int]]
    ) -> None:
        """Minutes from before the watch are not reported by the engine; those that the store lacks are kept here."""
        symbol, new = history.symbol, list[Candle]()
        if self._histories.reaches(symbol, history.complete_from_ms):
            self._write_history(symbol)
        minutes = with_quiet_minutes(history, until_ms)
        for minute in minutes:
            open_time_ms = minute.open_time_ms
            if self._code(symbol, open_time_ms) in (_UNKNOWN, EMPTY_CODE) and self._is_known(symbol, open_time_ms):
                new.append(msgspec.structs.replace(minute, trust=Trust.VERIFIED))
        if not new:
            return
        candles = new + _longer(minutes, {minute.open_time_ms for minute in new})
        if len(new) >= GATHERED_MINUTES:
            self._write_history(symbol)  # never two of one symbol
            self._histories.gather(symbol, candles, self._engine.now_ms)
            self._note_oldest(candles)
            return
        records += candles
        for minute in new:
            self._mark(symbol, minute.open_time_ms, _VERIFIED, touched)

    # --- Histories that wait ----------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """No wait for :meth:`room`."""
        return len(self._histories) <= MAX_WAITING and self.writer.has_room

    async def room(self) -> None:
        """Wait until the writer's queue has room, and no more histories wait than may."""
        while len(self._histories) > MAX_WAITING:
            self._write_slice()
            await self.writer.room()
        await self.writer.room()

    async def write_histories(self, now_ms: int) -> None:
        """Write what has waited long enough, with room for other records in between: without steps nobody else does."""
        while self._histories.is_due(now_ms):
            self._write_slice()
            if not await self.writer.flush(SLICE_DEADLINE_S):
                return

    def finish(self) -> None:
        """Hand over to the writer what is not there yet; good before the end."""
        while self._histories:
            self._write_slice()
        self.compare()

    def _write_touched(self, outcome: MinuteOutcome) -> None:
        """What a step says of minutes that wait comes after them."""
        histories = self._histories
        touched = {span.symbol for span in outcome.lost if histories.reaches(span.symbol, span.start_ms)}
        touched |= {one.symbol for one in outcome.closed if histories.reaches(one.symbol, one.close_time_ms - 1)}
        for symbol in sorted(touched):
            self._write_history(symbol)

    def _write_slice(self) -> None:
        self.writer.put_units_now([self._unit(packed) for packed in self._histories.take_slice()])

    def _write_history(self, symbol: str) -> None:
        packed = self._histories.take(symbol)
        if packed is not None:
            self.writer.put_now(*self._unit(packed))

    def _unit(self, packed: PackedCandles) -> tuple[Record | PackedCandles, ...]:
        """Candles and what the ledger says of them, to be committed together."""
        symbol, touched = packed.symbol, set[tuple[str, int]]()
        for open_time_ms in packed.minutes():
            self._mark(symbol, open_time_ms, _VERIFIED, touched)
        return packed, *(LedgerHour(*key, self._hour(*key)) for key in sorted(touched))

    def _is_known(self, symbol: str, open_time_ms: int) -> bool:
        return self._engine.ledger.trust(symbol, open_time_ms) is not Trust.UNKNOWN

    def _note_contract(self, contract: Contract, records: list[Record]) -> None:
        if self._contracts.get(contract.symbol) != contract:
            self._contracts[contract.symbol] = contract
            records.append(contract)

    def compare(self) -> None:
        """Store what the ledger learnt without a candle being closed: minutes verified by REST, or empty ones.

        Done once a minute by itself; once more before the end is good.
        """
        now_ms = self._engine.now_ms
        self._compared_ms = now_ms - now_ms % MINUTE_MS
        records: list[Record] = []
        touched: set[tuple[str, int]] = set()
        for series in self._engine.book.series.values():
            self._note_contract(series.contract, records)
        oldest_ms = now_ms - self._engine.ledger.minutes * MINUTE_MS
        for symbol in [symbol for symbol, ring in self._kept.items() if ring.newest * MINUTE_MS < oldest_ms]:
            del self._kept[symbol]
        first_ms = oldest_ms - oldest_ms % HOUR_MS + HOUR_MS
        for symbol, series in self._engine.book.series.items():
            if symbol in self._histories:
                continue  # its minutes are known without a candle only until they are written
            self._compare_symbol(symbol, first_ms, now_ms, series.watched_since_ms or now_ms, touched)
        self._put(records, touched)

    def _compare_symbol(
        self, symbol: str, start_ms: int, now_ms: int, watched_since_ms: int, touched: set[tuple[str, int]]
    ) -> None:
        ledger, end_ms = self._engine.ledger, now_ms - now_ms % HOUR_MS + HOUR_MS
        # Two days of a thousand symbols hour by hour take long; what is old has rarely changed since the last time.
        changed_ms = ledger.take_changed_ms(symbol)
        first_ms = end_ms - RECENT_MINUTES * MINUTE_MS
        if changed_ms is not None:
            first_ms = min(first_ms, changed_ms - changed_ms % HOUR_MS)
        for hour_ms in range(max(start_ms, first_ms), end_ms, HOUR_MS):
            known, kept = ledger.codes(symbol, hour_ms, hour_ms + HOUR_MS), self._hour(symbol, hour_ms)
            if known == kept or known == kept.translate(_EMPTY_IS_VERIFIED):
                continue
            for minute, (new, is_kept_as) in enumerate(zip(known, kept, strict=True)):
                open_time_ms = hour_ms + minute * MINUTE_MS
                if new == _UNKNOWN or is_kept_as in (new, EMPTY_CODE):
                    continue  # unknown by itself is no news: what was lost has been reported
                if is_kept_as != _UNKNOWN:
                    self._mark(symbol, open_time_ms, new, touched)
                elif open_time_ms >= watched_since_ms:
                    # Known without a candle; before the watch it would be a history that is not kept.
                    self._mark(symbol, open_time_ms, EMPTY_CODE, touched)

    def _put(self, records: list[Record], touched: set[tuple[str, int]]) -> None:
        self._note_oldest(records)
        records += [LedgerHour(*key, self._hour(*key)) for key in sorted(touched)]
        self.writer.put_now(*records)

    def _note_oldest(self, records: Sequence[Record]) -> None:
        oldest_ms = self._oldest_ms
        for record in records:
            if type(record) is Candle and record.open_time_ms < oldest_ms.get(record.timeframe, math.inf):
                oldest_ms[record.timeframe] = record.open_time_ms

    def _hour(self, symbol: str, hour_ms: int) -> bytes:
        """What the store has of an hour."""
        ring = self._kept.get(symbol)
        return ring.slice(hour_ms // MINUTE_MS, (hour_ms + HOUR_MS) // MINUTE_MS) if ring is not None else bytes(60)

    # --- What is told and remembered --------------------------------------------------------------------------------

    def alert(self, alert: Alert | MarketAlert, states: Mapping[str, bytes] | None = None) -> None:
        """Store an alert together with the states that must not forget it, and with who is to be told."""
        symbol = alert.symbol if isinstance(alert, Alert) else ""
        records: list[Record] = [Alerted(alert.key, alert.time_ms, symbol, finite_json(alert))]
        records += [State(key, value, alert.time_ms) for key, value in (states or {}).items()]
        records += self.beside(alert)
        self.writer.put_now(*records)

    def outcome(self, outcome: Outcome) -> None:
        """Store what came of an alert."""
        body = msgspec.json.encode(outcome)
        self.writer.put_now(AlertOutcome(outcome.key, outcome.time_ms, outcome.symbol, body))

    def remember(self, key: str, value: bytes, now_ms: int) -> None:
        """Store a state, to be asked for with :meth:`recall` after the next start."""
        self.writer.put_now(State(key, value, now_ms))


def _decoded(kept: Iterable[Alerted]) -> list[Alert | MarketAlert]:
    found: list[Alert | MarketAlert] = []
    for alerted in kept:
        try:
            if alerted.symbol:
                found.append(msgspec.json.decode(alerted.body, type=Alert))
            else:
                found.append(msgspec.json.decode(alerted.body, type=MarketAlert))
        except msgspec.MsgspecError as error:
            logger.warning("the alert %s cannot be read: %s", alerted.key, error)
    return found


def _longer(minutes: list[Candle], new: set[int]) -> list[Candle]:
    """The longer candles that lie wholly within these minutes and hold a new one."""
    start_ms, end_ms = minutes[0].open_time_ms, minutes[-1].close_time_ms
    found: list[Candle] = []
    for timeframe in _LONGER:
        length = timeframe.milliseconds
        buckets = {open_time_ms - open_time_ms % length for open_time_ms in new}
        wanted = [minute for minute in minutes if minute.open_time_ms - minute.open_time_ms % length in buckets]
        found += [
            candle for candle in roll_up_all(wanted, timeframe, until_ms=end_ms) if candle.open_time_ms >= start_ms
        ]
    return found
