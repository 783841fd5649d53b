"""The past that a watch has kept, as the laboratory walks through it.

It is read an hour at a time, so that a week of the whole market needs no more memory than an hour of it. Candles of all
timeframes are taken as they were kept, with what is known of them: a rule sees what it would have been shown live.
Running candles, tickers and trades are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from perpwatch.errors import ConfigurationError, StoreError
from perpwatch.model import ANALYSED_TIMEFRAMES, Candle, Contract
from perpwatch.store import HOUR_MS, Reader, open_reader


@dataclass(frozen=True, slots=True)
class StoredPast:
    """A span of time of a store, from the first to the last hour in which something is known."""

    name: ClassVar[str] = "stored past"

    address: str
    start_ms: int  # both on a whole hour
    end_ms: int
    symbols: tuple[str, ...]

    @classmethod
    def of(cls, address: str, start_ms: int, end_ms: int) -> StoredPast | None:
        """What the store at ``address`` knows between two times; None when it knows nothing.

        Raises:
            StoreError: there is no store, or it cannot be read.
            ConfigurationError: an address that cannot be one.
        """
        with open_reader(address) as reader:
            hours = [hour for hour in reader.ledger(start_ms, end_ms) if any(hour.codes)]
        if not hours:
            return None
        symbols = tuple(sorted({hour.symbol for hour in hours}))
        return cls(address, hours[0].hour_ms, hours[-1].hour_ms + HOUR_MS, symbols)

    @contextmanager
    def opened(self) -> Iterator[Reader]:
        """
        Raises:
            ConfigurationError: the store cannot be read any more.
        """
        try:
            with open_reader(self.address) as reader:
                yield reader
        except StoreError as error:
            raise ConfigurationError("store", self.name, f"a store that can be read ({error})") from error

    def contracts(self, reader: Reader) -> list[Contract]:
        """The contracts of its symbols, as far as they are known."""
        wanted = set(self.symbols)
        return [contract for contract in reader.contracts() if contract.symbol in wanted]

    def closing(self, reader: Reader) -> Iterator[list[Candle]]:
        """Hour by hour, the candles that closed in it, in no order."""
        for from_ms in range(self.start_ms, self.end_ms, HOUR_MS):
            candles: list[Candle] = []
            for timeframe in ANALYSED_TIMEFRAMES:
                first_ms = from_ms - timeframe.milliseconds + 1
                candles += reader.market_candles(timeframe, first_ms, first_ms + HOUR_MS)
            yield candles
