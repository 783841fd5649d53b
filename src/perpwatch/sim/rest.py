"""What the simulated exchange answers to REST calls, with its limits and its bad days."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from perpwatch.model import MINUTE_MS, Timeframe
from perpwatch.sim import frames
from perpwatch.sim.frames import encode
from perpwatch.sim.market import Columns, Listing, bucket_start

if TYPE_CHECKING:
    from perpwatch.sim.exchange import SimulatedExchange

PREFIX = "/api/v1/contract/"
MAX_ROWS = 2_000
WINDOW_MS = 2_000
#: Requests per 2 s of an endpoint; the others allow 20 (the exchange's documentation).
TIGHT_LIMITS = {"depth": 10, "ticker": 10, "detail": 10}
USUAL_LIMIT = 20
MAX_DEALS = 100

JSON = {"content-type": "application/json;charset=UTF-8"}
HTML = {"content-type": "text/html"}

CONTRACT_MISSING = b'{"success":false,"code":1001,"message":"Contract does not exist"}'
CONTRACT_NOT_LISTED = b'{"success":false,"code":1001,"message":"Contract not exists"}'
TOO_FREQUENT = b'{"success":false,"code":510,"message":"Requests are too frequent"}'
BAD_PARAMETER = b'{"success":false,"code":600,"message":"Parameter error"}'
NO_ENDPOINT = b'{"success":false,"code":404,"message":"Not Found"}'
MAINTENANCE_PAGE = b"<!DOCTYPE html><html><head><title>MEXC</title></head><body>Temporarily unavailable</body></html>"
FIREWALL_PAGE = b"<HTML><HEAD><TITLE>Access Denied</TITLE></HEAD><BODY>Access Denied</BODY></HTML>"

_KLINE_COLUMNS = (
    "time", "open", "close", "high", "low", "vol", "amount", "realOpen", "realClose", "realHigh", "realLow",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back for a request. ``delay_s`` is the time the exchange takes, None for ever."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    delay_s: float | None = 0.0


@dataclass(slots=True)
class RestCounters:
    """Requests so far and how many of them were refused."""

    requests: int = 0
    throttled: int = 0  # answered with code 510
    spoilt: int = 0  # by a fault
    max_requests_per_2s: int = 0
    by_endpoint: dict[str, int] = field(default_factory=dict)


class RestDesk:
    """Answers requests from the state of an exchange."""

    def __init__(self, exchange: SimulatedExchange, random: Random) -> None:
        self.counters = RestCounters()
        self._exchange = exchange
        self._random = random
        self._windows: dict[str, deque[int]] = {}
        self._storms: dict[str, float] = {}  # kind of a storm and when it ends
        self._endpoints: dict[str, Callable[[list[str], Mapping[str, str], int], bytes]] = {
            "ping": self._ping,
            "detail": self._detail,
            "support_currencies": self._currencies,
            "ticker": self._ticker,
            "kline": self._kline,
            "depth": self._depth,
            "depth_commits": self._depth_commits,
            "deals": self._deals,
            "index_price": self._index_price,
            "fair_price": self._fair_price,
            "funding_rate": self._funding_rate,
            "risk_reverse": self._risk_reverse,
        }

    def storm(self, kind: str, until_ms: float) -> None:
        """Spoil every request until a time: ``rest_510``, ``rest_html`` or ``rest_timeout``."""
        self._storms[kind] = until_ms

    def get(self, path: str, params: Mapping[str, str], now_ms: int) -> Answer:
        counters, faults = self.counters, self._exchange.faults
        endpoint, *rest = path.removeprefix(PREFIX).strip("/").split("/")
        counters.requests += 1
        counters.by_endpoint[endpoint] = counters.by_endpoint.get(endpoint, 0) + 1
        delay_s = faults.rest_delay_ms / 1_000
        spoilt = self._spoilt(now_ms)
        if spoilt is not None:
            counters.spoilt += 1
            return spoilt
        if self._is_throttled(endpoint, now_ms):
            counters.throttled += 1
            return Answer(200, TOO_FREQUENT, delay_s=delay_s)
        answer = self._endpoints.get(endpoint)
        if answer is None or not path.startswith(PREFIX):
            return Answer(404, NO_ENDPOINT, delay_s=delay_s)
        body = answer(rest, params, now_ms)
        if faults.rest_truncated and self._random.random() < faults.rest_truncated:
            counters.spoilt += 1
            body = body[: len(body) // 2]
        return Answer(200, body, delay_s=delay_s)

    # Limits and faults

    def _spoilt(self, now_ms: int) -> Answer | None:
        """The answer a fault gives in place of the real one."""
        faults, storms = self._exchange.faults, self._storms
        ended = [kind for kind, until_ms in storms.items() if now_ms >= until_ms]
        for kind in ended:
            del storms[kind]
        if "rest_timeout" in storms or self._hits(faults.rest_timeout):
            return Answer(504, b"", delay_s=None)
        if "rest_510" in storms or self._hits(faults.rest_510):
            self.counters.throttled += 1
            return Answer(200, TOO_FREQUENT)
        if "rest_html" in storms or self._hits(faults.rest_html):
            return Answer(200, MAINTENANCE_PAGE, HTML)
        if self._hits(faults.rest_429):
            return Answer(429, b"Too Many Requests", {**HTML, "retry-after": str(faults.retry_after_s)})
        if self._hits(faults.rest_403):
            return Answer(403, FIREWALL_PAGE, HTML)
        if self._hits(faults.rest_redirect):
            return Answer(302, b"", {**HTML, "location": "/blocked"})
        if self._hits(faults.rest_empty):
            return Answer(200, b"")
        return None

    def _hits(self, share: float) -> bool:
        return bool(share) and self._random.random() < share

    def _is_throttled(self, endpoint: str, now_ms: int) -> bool:
        """Count a request, refused ones too: whoever keeps asking is kept out."""
        faults = self._exchange.faults
        total = self._count("", now_ms)
        self.counters.max_requests_per_2s = max(self.counters.max_requests_per_2s, total)
        own = self._count(endpoint, now_ms)
        if faults.max_requests_per_2s is not None and total > faults.max_requests_per_2s:
            return True
        return faults.rest_limits and own > TIGHT_LIMITS.get(endpoint, USUAL_LIMIT)

    def _count(self, window: str, now_ms: int) -> int:
        times = self._windows.setdefault(window, deque())
        while times and times[0] <= now_ms - WINDOW_MS:
            times.popleft()
        times.append(now_ms)
        return len(times)

    # Endpoints

    def _ping(self, _path: list[str], _params: Mapping[str, str], now_ms: int) -> bytes:
        return _success(now_ms)

    def _detail(self, path: list[str], params: Mapping[str, str], _now_ms: int) -> bytes:
        symbol = params.get("symbol")
        if symbol is None:
            return _success([frames.contract_record(each) for each in self._exchange.market.listings()])
        listing = self._exchange.market.listing(symbol)
        return CONTRACT_NOT_LISTED if listing is None else _success(frames.contract_record(listing))

    def _currencies(self, _path: list[str], _params: Mapping[str, str], _now_ms: int) -> bytes:
        return _success(["USDT", "BTC", "ETH", "SOL", "USDC"])

    def _ticker(self, _path: list[str], params: Mapping[str, str], now_ms: int) -> bytes:
        market = self._exchange.market
        symbol = params.get("symbol")
        if symbol is None:
            return _success([frames.rest_ticker(each, market.day(each), now_ms) for each in market.listings()])
        listing = market.listing(symbol)
        if listing is None:
            return CONTRACT_MISSING
        return _success(frames.rest_ticker(listing, market.day(listing), now_ms))

    def _kline(self, path: list[str], params: Mapping[str, str], now_ms: int) -> bytes:
        is_reference = len(path) == 2 and path[0] in ("index_price", "fair_price")
        listing = self._listing(path[-1:])
        if listing is None:
            return CONTRACT_MISSING
        interval = params.get("interval", "Min1")
        if interval not in Timeframe.__members__:
            return BAD_PARAMETER
        timeframe = Timeframe(interval)
        start_s, end_s = _whole(params.get("start")), _whole(params.get("end"))
        columns = self._columns(listing, timeframe, start_s, end_s, now_ms)
        count = len(columns)
        prices = [columns.open, columns.close, columns.high, columns.low]
        zeros = [0.0] * count
        values = [
            (columns.minute * 60).tolist(),
            *(column.tolist() for column in prices),
            zeros if is_reference else columns.contracts.astype(float).tolist(),
            zeros if is_reference else columns.amount.tolist(),
            *(
                column.tolist()
                for column in (columns.real_open, columns.real_close, columns.real_high, columns.real_low)
            ),
        ]
        return _success(dict(zip(_KLINE_COLUMNS, values, strict=True)))

    def _depth(self, path: list[str], params: Mapping[str, str], now_ms: int) -> bytes:
        listing = self._listing([each.upper() for each in path])
        if listing is None:
            return _success({"cts": None, "asks": [], "bids": [], "version": 1, "timestamp": now_ms})
        book = self._exchange.book(listing)
        asks, bids = book.top(_whole(params.get("limit")) or 1_000)
        return _success({"asks": asks, "bids": bids, "timestamp": now_ms, "version": book.version, "cts": now_ms})

    def _depth_commits(self, path: list[str], _params: Mapping[str, str], _now_ms: int) -> bytes:
        return CONTRACT_MISSING if self._listing(path[:1]) is None else _success([])

    def _deals(self, path: list[str], params: Mapping[str, str], _now_ms: int) -> bytes:
        listing = self._listing(path)
        if listing is None:
            return CONTRACT_MISSING
        limit = min(MAX_DEALS, _whole(params.get("limit")) or MAX_DEALS)
        rows = [
            {
                "p": trade.price,
                "v": trade.contracts,
                "T": trade.side,
                "O": frames.opens(trade),
                "M": 2,
                "t": trade.time_ms,
                "i": str(trade.trade_id),
            }
            for trade in list(listing.recent)[-limit:][::-1]
        ]
        return _success(rows)

    def _index_price(self, path: list[str], _params: Mapping[str, str], now_ms: int) -> bytes:
        listing = self._listing(path)
        if listing is None:
            return CONTRACT_MISSING
        price = frames.index_price(listing, now_ms)
        return _success({"indexPrice": price, "symbol": listing.symbol, "timestamp": now_ms})

    def _fair_price(self, path: list[str], _params: Mapping[str, str], now_ms: int) -> bytes:
        listing = self._listing(path)
        if listing is None:
            return CONTRACT_MISSING
        price = frames.fair_price(listing, now_ms)
        return _success({"fairPrice": price, "symbol": listing.symbol, "timestamp": now_ms})

    def _funding_rate(self, path: list[str], params: Mapping[str, str], now_ms: int) -> bytes:
        if path == ["history"]:
            return self._funding_history(params, now_ms)
        if not path:
            return _success([_funding(each, now_ms) for each in self._exchange.market.listings()])
        listing = self._listing(path)
        return CONTRACT_MISSING if listing is None else _success(_funding(listing, now_ms))

    def _funding_history(self, params: Mapping[str, str], now_ms: int) -> bytes:
        listing = self._listing([params.get("symbol", "")])
        if listing is None:
            return CONTRACT_MISSING
        page, size = _whole(params.get("page_num")) or 1, min(1_000, _whole(params.get("page_size")) or 20)
        total = 90
        settled = frames.next_settlement_ms(now_ms)
        rows = [
            {
                "collectCycle": 8,
                "fundingRate": frames.funding_rate(listing, settled - number * 28_800_000),
                "settleTime": settled - number * 28_800_000,
                "symbol": listing.symbol,
            }
            for number in range((page - 1) * size + 1, min(page * size, total) + 1)
        ]
        return _success(_page(rows, page, size, total))

    def _risk_reverse(self, path: list[str], params: Mapping[str, str], now_ms: int) -> bytes:
        if path == ["history"]:
            page, size = _whole(params.get("page_num")) or 1, min(100, _whole(params.get("page_size")) or 20)
            return _success(_page([], page, size, 0))
        rows = [
            {"available": 1e5, "currency": each.instrument.settle_coin, "symbol": each.symbol, "timestamp": now_ms}
            for each in self._exchange.market.listings()
        ]
        return _success(rows)

    def _listing(self, path: list[str]) -> Listing | None:
        return self._exchange.market.listing(path[0]) if path else None

    def _columns(
        self, listing: Listing, timeframe: Timeframe, start_s: int | None, end_s: int | None, now_ms: int
    ) -> Columns:
        """The latest 2,000 candles that open within two times in seconds, both included."""
        faults, market = self._exchange.faults, self._exchange.market
        newest = market.minute if end_s is None else min(market.minute, end_s // 60)
        first = 0 if start_s is None else -(-start_s // 60)
        # Reading far back costs, and a contract that trades most of the time fills its rows much earlier.
        enough = bucket_start(newest, timeframe) - 2 * MAX_ROWS * timeframe.minutes
        columns = market.columns(listing.symbol, timeframe, max(first, enough), newest)
        if first < enough and len(columns) < MAX_ROWS:
            columns = market.columns(listing.symbol, timeframe, first, newest)
        if faults.rest_lag_ms:
            columns = _older(columns, now_ms - faults.rest_lag_ms, timeframe)
        if faults.flat_empty_minutes and timeframe is Timeframe.Min1:
            columns = _filled(columns, newest)
        return columns.take(slice(-MAX_ROWS, None))


def _older(columns: Columns, as_of_ms: int, timeframe: Timeframe) -> Columns:
    """Without the candles that had not begun at ``as_of_ms``."""
    return columns.between(0, bucket_start(as_of_ms // MINUTE_MS, timeframe))


def _filled(columns: Columns, last_minute: int) -> Columns:
    """With a flat row for every minute without trades between the first row and ``last_minute``."""
    if not len(columns):
        return columns
    minutes = np.arange(int(columns.minute[0]), last_minute + 1)
    latest = np.searchsorted(columns.minute, minutes, side="right") - 1
    is_real = columns.minute[latest] == minutes
    close = columns.close[latest]

    def price(values: Any) -> Any:
        return np.where(is_real, values[latest], close)

    return Columns(
        minutes,
        price(columns.open),
        price(columns.high),
        price(columns.low),
        close,
        np.where(is_real, columns.contracts[latest], 0),
        np.where(is_real, columns.amount[latest], 0.0),
        price(columns.real_open),
        price(columns.real_high),
        price(columns.real_low),
        close,
    )


def _funding(listing: Listing, now_ms: int) -> dict[str, Any]:
    return {
        "symbol": listing.symbol,
        "fundingRate": frames.funding_rate(listing, now_ms),
        "maxFundingRate": 0.0018,
        "minFundingRate": -0.0018,
        "collectCycle": 8,
        "nextSettleTime": frames.next_settlement_ms(now_ms),
        "timestamp": now_ms,
        "idxPrice": frames.index_price(listing, now_ms),
        "fairPrice": frames.fair_price(listing, now_ms),
    }


def _page(rows: list[dict[str, Any]], page: int, size: int, total: int) -> dict[str, Any]:
    return {
        "currentPage": page,
        "pageSize": size,
        "resultList": rows,
        "totalCount": total,
        "totalPage": -(-total // size),
    }


def _success(fields: object) -> bytes:
    return encode({"success": True, "code": 0, "data": fields})


def _whole(text: str | None) -> int | None:
    """A parameter as a whole number; anything else counts as not given, as on the exchange."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
