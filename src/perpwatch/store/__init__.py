"""What is kept: candles, signals, alerts, the ledger and what the program must remember after a crash."""

from perpwatch.store.database import Database
from perpwatch.store.maintenance import Retention
from perpwatch.store.packed import PackedCandles
from perpwatch.store.reader import Reader, open_reader
from perpwatch.store.records import (
    EMPTY_CODE,
    HOUR_MS,
    TRUST_CODES,
    Alerted,
    AlertOutcome,
    Delivery,
    DeliveryState,
    Label,
    LedgerHour,
    Record,
    Retracted,
    State,
)
from perpwatch.store.writer import Trouble, Writer

__all__ = [
    "EMPTY_CODE",
    "HOUR_MS",
    "TRUST_CODES",
    "AlertOutcome",
    "Alerted",
    "Database",
    "Delivery",
    "DeliveryState",
    "Label",
    "LedgerHour",
    "PackedCandles",
    "Reader",
    "Record",
    "Retention",
    "Retracted",
    "State",
    "Trouble",
    "Writer",
    "open_reader",
]
