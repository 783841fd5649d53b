"""MEXC Futures: every public channel and REST endpoint, in the words of :mod:`perpwatch.model`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from perpwatch.exchanges.adapter import Limits, Request
from perpwatch.exchanges.mexc import channels, codec, rest
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.model import CandleHistory, Contract, FundingRate, Stream, Ticker, Timeframe

__all__ = ["REST_URL", "WEBSOCKET_URL", "MexcFutures", "corrected_websocket_url"]

WEBSOCKET_URL = "wss://contract.mexc.com/edge"
REST_URL = "https://api.mexc.com"  # since January 2026; https://contract.mexc.com still answered in September 2026


@dataclass(frozen=True, slots=True)
class MexcFutures:
    """The wire language of MEXC Futures, an :class:`~perpwatch.exchanges.adapter.Adapter`.

    Addresses and limits can be replaced: by another host where one is blocked, by a simulator, by what was measured.
    """

    websocket_url: str = WEBSOCKET_URL
    rest_url: str = REST_URL
    limits: Limits = LIMITS

    @property
    def name(self) -> str:
        return "mexc"

    @property
    def timeframes(self) -> Sequence[Timeframe]:
        return channels.TIMEFRAMES

    def channel(self, stream: Stream) -> str:
        return channels.channel(stream)

    def subscribe(self, stream: Stream) -> bytes:
        return channels.subscribe(stream)

    def unsubscribe(self, stream: Stream) -> bytes:
        return channels.unsubscribe(stream)

    def ping(self) -> bytes:
        return channels.PING

    decode = staticmethod(codec.decode)
    decode_all = staticmethod(codec.decode_all)

    def symbol_page(self, symbol: str) -> str:
        # The address in the header of the exchange's own pages. Without the underscore it leads nowhere.
        return f"https://www.mexc.com/futures/{quote(symbol, safe='')}"

    def server_time(self) -> Request[int]:
        return rest.ping()

    def contracts(self) -> Request[Sequence[Contract]]:
        return rest.contracts()

    def contract(self, symbol: str) -> Request[Contract]:
        return rest.contract(symbol)

    def tickers(self) -> Request[Sequence[Ticker]]:
        return rest.tickers()

    def funding_rates(self) -> Request[Sequence[FundingRate]]:
        return rest.funding_rates()

    def candles(self, contract: Contract, timeframe: Timeframe, start_ms: int, end_ms: int) -> Request[CandleHistory]:
        return rest.candles(contract, timeframe, start_ms, end_ms)


def corrected_websocket_url(url: str) -> tuple[str, str | None]:
    """The address to dial instead of ``url``, and a warning for people when it is not the same or looks wrong.

    ``/ws`` was the path of MEXC Futures until early 2024 and now answers the upgrade with a redirect; many guides and
    configurations still carry it. Other hosts (a simulator, a proxy) are left alone.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    path = parts.path.rstrip("/")
    if host.startswith("wbs") and host.endswith((".mexc.com", ".mexc.co")):
        return url, f"{url} is the spot market's address; futures are at {WEBSOCKET_URL}"
    if host == "contract.mxc.com":
        return WEBSOCKET_URL, f"{url} is the exchange's address of 2021; using {WEBSOCKET_URL}"
    if host in _OWN_HOSTS and path == "/ws":
        corrected = parts._replace(path="/edge").geturl()
        return corrected, f"{url} has the path of before 2024, which is redirected today; using {corrected}"
    return url, None


_OWN_HOSTS = frozenset({"contract.mexc.com", "contract.mexc.co", "futures.mexc.com"})
