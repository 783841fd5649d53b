"""Every public REST endpoint as a :class:`~perpwatch.exchanges.adapter.Request`: where it goes, what its answer means.

All are GET below ``/api/v1/contract``. The exchange refuses with HTTP status 200 and ``success: false``; its edge may
answer with HTML, an empty body or half a body instead. Each becomes an error that says what came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from perpwatch.errors import ApiError, ProtocolError, RateLimited
from perpwatch.exchanges.adapter import Request
from perpwatch.exchanges.mexc import normalize
from perpwatch.exchanges.mexc.codec import UNREADABLE, reason_of, with_integers
from perpwatch.exchanges.mexc.limits import RATE_LIMIT_PAUSE_S
from perpwatch.exchanges.mexc.messages import (
    Book,
    BookSnapshot,
    ContractRecord,
    Deal,
    Envelope,
    FairPrice,
    FundingRow,
    FundingSettlement,
    IndexPrice,
    InsuranceFund,
    KlineColumns,
    Outcome,
    Page,
    TickerRow,
    TimeMs,
)
from perpwatch.model import CandleHistory, Contract, Depth, FundingRate, ReferencePrice, Ticker, Timeframe, Trades

T = TypeVar("T")
R = TypeVar("R")

ROOT = "/api/v1/contract"

#: Codes for "too often": 510 is what the exchange sends; 429 is what some clients have mapped beside it.
RATE_LIMIT_CODES = frozenset({510, 429})


# --- The exchange --------------------------------------------------------------------------------------------------


def ping() -> Request[int]:
    """The server's clock, milliseconds."""
    return _request("ping", "/ping", _PING, _same)


def support_currencies() -> Request[Sequence[str]]:
    """Coins that can serve as margin."""
    return _request("support_currencies", "/support_currencies", _NAMES, _same)


# --- Contracts -----------------------------------------------------------------------------------------------------


def contracts() -> Request[Sequence[Contract]]:
    """All listed contracts. Not quite all: some stream without being listed and can be read one by one."""

    def listed(records: Sequence[ContractRecord]) -> tuple[Contract, ...]:
        return tuple(normalize.contract(record) for record in records)

    return _request("detail", "/detail", _CONTRACTS, listed)


def contract(symbol: str) -> Request[Contract]:
    """One contract; code 1001 when there is none."""
    return _request("detail", "/detail", _CONTRACT, normalize.contract, {"symbol": symbol})


# --- Prices --------------------------------------------------------------------------------------------------------


def tickers() -> Request[Sequence[Ticker]]:
    """All contracts, the only bulk source of best bid and ask, open interest and funding."""
    return _request("ticker", "/ticker", _TICKERS, _same)


def ticker(symbol: str) -> Request[Ticker]:
    return _request("ticker", "/ticker", _TICKER, _same, {"symbol": symbol})


def index_price(symbol: str) -> Request[ReferencePrice]:
    return _request("index_price", f"/index_price/{_in_path(symbol)}", _INDEX_PRICE, normalize.index_price)


def fair_price(symbol: str) -> Request[ReferencePrice]:
    return _request("fair_price", f"/fair_price/{_in_path(symbol)}", _FAIR_PRICE, normalize.fair_price)


# --- Candles -------------------------------------------------------------------------------------------------------


def candles(contract: Contract, timeframe: Timeframe, start_ms: int, end_ms: int) -> Request[CandleHistory]:
    """Candles that open within ``start_ms`` (inclusive) to ``end_ms`` (exclusive), oldest first.

    At most 2,000, the latest of the window; :func:`~.normalize.candle_history` says what the answer speaks for and what
    it cannot tell. The running candle is the last row and is left in.
    """
    return _candles("kline", f"/kline/{_in_path(contract.symbol)}", contract, timeframe, start_ms, end_ms)


def index_price_candles(contract: Contract, timeframe: Timeframe, start_ms: int, end_ms: int) -> Request[CandleHistory]:
    """As :func:`candles`, of the index price; all volumes are 0."""
    path = f"/kline/index_price/{_in_path(contract.symbol)}"
    return _candles("kline_index_price", path, contract, timeframe, start_ms, end_ms)


def fair_price_candles(contract: Contract, timeframe: Timeframe, start_ms: int, end_ms: int) -> Request[CandleHistory]:
    """As :func:`candles`, of the fair price; all volumes are 0."""
    path = f"/kline/fair_price/{_in_path(contract.symbol)}"
    return _candles("kline_fair_price", path, contract, timeframe, start_ms, end_ms)


# --- Books and trades ----------------------------------------------------------------------------------------------


def depth(symbol: str, limit: int | None = None) -> Request[Depth]:
    """A whole book; 5, 20, 100 or 1,000 levels a side are honoured. It may be older than the stream by 400 versions."""

    def book(snapshot: BookSnapshot) -> Depth:
        return normalize.snapshot(symbol, snapshot)

    params = None if limit is None else {"limit": limit}
    return _request("depth", f"/depth/{_in_path(symbol)}", _BOOK_SNAPSHOT, book, params)


def depth_commits(symbol: str, limit: int) -> Request[Sequence[Depth]]:
    """The last ``limit`` changes of a book, oldest first."""

    def changes(books: Sequence[Book]) -> tuple[Depth, ...]:
        return normalize.commits(symbol, books)

    return _request("depth_commits", f"/depth_commits/{_in_path(symbol)}/{limit}", _BOOKS, changes)


def deals(symbol: str, limit: int | None = None) -> Request[Trades]:
    """The last trades, at most 100, oldest first."""

    def trades(rows: Sequence[Deal]) -> Trades:
        return normalize.deals(symbol, rows)

    params = None if limit is None else {"limit": limit}
    return _request("deals", f"/deals/{_in_path(symbol)}", _DEALS, trades, params)


# --- Funding and insurance -----------------------------------------------------------------------------------------


def funding_rate(symbol: str) -> Request[FundingRow]:
    return _request("funding_rate", f"/funding_rate/{_in_path(symbol)}", _FUNDING_ROW, _same)


def funding_rates() -> Request[Sequence[FundingRate]]:
    """All contracts in one call."""
    return _request("funding_rate", "/funding_rate", _FUNDING_ROWS, _same)


def funding_rate_history(symbol: str, page: int = 1, page_size: int = 100) -> Request[Page[FundingSettlement]]:
    """Settled rates, newest first; at most 1,000 a page."""
    return _request(
        "funding_rate_history", "/funding_rate/history", _FUNDING_PAGE, _same, _page(symbol, page, page_size)
    )


def risk_reverse() -> Request[Sequence[InsuranceFund]]:
    """The insurance funds of all contracts."""
    return _request("risk_reverse", "/risk_reverse", _INSURANCE_FUNDS, _same)


def risk_reverse_history(symbol: str, page: int = 1, page_size: int = 100) -> Request[Page[InsuranceFund]]:
    """An insurance fund over time, newest first; at most 100 a page."""
    return _request(
        "risk_reverse_history", "/risk_reverse/history", _INSURANCE_PAGE, _same, _page(symbol, page, page_size)
    )


# --- Reading an answer ---------------------------------------------------------------------------------------------


_PING = msgspec.json.Decoder(Envelope[TimeMs])
_NAMES = msgspec.json.Decoder(Envelope[tuple[str, ...]])
_CONTRACT = msgspec.json.Decoder(Envelope[ContractRecord])
_CONTRACTS = msgspec.json.Decoder(Envelope[tuple[ContractRecord, ...]])
_TICKER = msgspec.json.Decoder(Envelope[TickerRow])
_TICKERS = msgspec.json.Decoder(Envelope[tuple[TickerRow, ...]])
_KLINES = msgspec.json.Decoder(Envelope[KlineColumns])
_BOOK_SNAPSHOT = msgspec.json.Decoder(Envelope[BookSnapshot])
_BOOKS = msgspec.json.Decoder(Envelope[tuple[Book, ...]])
_DEALS = msgspec.json.Decoder(Envelope[tuple[Deal, ...]])
_INDEX_PRICE = msgspec.json.Decoder(Envelope[IndexPrice])
_FAIR_PRICE = msgspec.json.Decoder(Envelope[FairPrice])
_FUNDING_ROW = msgspec.json.Decoder(Envelope[FundingRow])
_FUNDING_ROWS = msgspec.json.Decoder(Envelope[tuple[FundingRow, ...]])
_FUNDING_PAGE = msgspec.json.Decoder(Envelope[Page[FundingSettlement]])
_INSURANCE_FUNDS = msgspec.json.Decoder(Envelope[tuple[InsuranceFund, ...]])
_INSURANCE_PAGE = msgspec.json.Decoder(Envelope[Page[InsuranceFund]])

_HTML_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def _candles(
    endpoint: str, path: str, listed: Contract, timeframe: Timeframe, start_ms: int, end_ms: int
) -> Request[CandleHistory]:
    assert start_ms < end_ms, f"empty window {start_ms} to {end_ms}"

    def history(columns: KlineColumns) -> CandleHistory:
        return normalize.candle_history(columns, listed, timeframe, start_ms, end_ms)

    params: dict[str, str | int] = {
        "interval": timeframe.value,
        # Seconds, both ends inclusive (measured). Milliseconds would be ignored silently and the latest rows returned.
        "start": -(-start_ms // 1000),
        "end": (end_ms - 1) // 1000,
    }
    return _request(endpoint, path, _KLINES, history, params)


def _request(
    endpoint: str,
    path: str,
    decoder: msgspec.json.Decoder[Envelope[T]],
    meaning: Callable[[T], R],
    params: Mapping[str, str | int] | None = None,
) -> Request[R]:
    path = ROOT + path

    def parse(body: bytes) -> R:
        try:
            return meaning(_content(decoder, body, path))
        except normalize.Unreadable as error:
            raise ProtocolError(str(error), body) from error

    return Request(endpoint, path, parse, params)


def _content(decoder: msgspec.json.Decoder[Envelope[T]], body: bytes, path: str) -> T:
    try:
        envelope = decoder.decode(body)
    except UNREADABLE:
        envelope = _read_again(decoder, body, path)
    if not envelope.success:
        raise _refusal(envelope.code, envelope.message, path)
    if envelope.data is None:
        raise ProtocolError("success without data", body)
    return envelope.data


def _read_again(decoder: msgspec.json.Decoder[Envelope[T]], body: bytes, path: str) -> Envelope[T]:
    """Integers in exponent form, refusals with odd content, and everything that is no answer at all."""
    value = _any_json(body)
    try:
        outcome = msgspec.convert(value, Outcome)
        if not outcome.success:
            raise _refusal(outcome.code, outcome.message, path)
        envelope: Envelope[T] = msgspec.convert(value, decoder.type)
        return envelope
    except (msgspec.ValidationError, RecursionError) as error:
        raise ProtocolError(reason_of(error, value), body) from error


def _any_json(body: bytes) -> Any:
    stripped = body.strip()
    if not stripped:
        raise ProtocolError("empty body", body)
    if stripped.startswith(b"<"):
        title = _HTML_TITLE.search(stripped)
        text = " ".join(title[1].decode("utf-8", "replace").split()) if title else "no title"
        raise ProtocolError(f"HTML instead of JSON: {text[:200]}", body)
    try:
        return with_integers(msgspec.json.decode(body))
    except UNREADABLE as error:
        what = "truncated JSON" if "truncated" in str(error) else "not JSON"
        raise ProtocolError(f"{what}: {error}", body) from error


def _refusal(code: int, message: str | None, path: str) -> RateLimited | ApiError:
    text = message or "no message"
    if code in RATE_LIMIT_CODES:
        return RateLimited(path, text, RATE_LIMIT_PAUSE_S)
    return ApiError(code, text)


def _page(symbol: str, page: int, page_size: int) -> Mapping[str, str | int]:
    return {"symbol": symbol, "page_num": page, "page_size": page_size}


def _in_path(symbol: str) -> str:
    return quote(symbol, safe="")


def _same(value: R) -> R:
    return value
