"""What an exchange must tell us. One :class:`Adapter` per exchange; nothing above this knows its spelling.

An adapter is pure: it turns wishes into bytes and bytes into words of :mod:`perpwatch.model`. It opens nothing, waits
for nothing and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from perpwatch.model import CandleHistory, Contract, Event, FundingRate, Stream, Ticker, Timeframe

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True):
    """What the exchange allows, or what we allow ourselves where it does not say."""

    max_connections: int
    max_subscriptions_per_connection: int
    commands_per_second: float  # per connection
    dials_per_second: float  # whole process
    ping_interval_s: float
    pong_timeout_s: float  # silence of the pongs after which a connection counts as dead
    ack_timeout_s: float
    connection_lifetime_s: float  # planned replacement before the server cuts
    max_frame_bytes: int
    requests_per_second: float  # REST, whole process
    max_candles_per_request: int


# --- What a frame can mean besides data ----------------------------------------------------------------------------


class Ack(msgspec.Struct, frozen=True, gc=False):
    """The oldest unanswered command on ``channel`` succeeded. The exchange does not say for which symbol."""

    channel: str
    event_time_ms: int | None


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A command was refused. ``symbol`` is given where the text names one.

    ``closes_connection`` marks the last words of a server that is about to hang up.
    """

    text: str
    symbol: str | None
    closes_connection: bool
    event_time_ms: int | None


class Pong(msgspec.Struct, frozen=True, gc=False):
    server_time_ms: int


class ServerPing(msgspec.Struct, frozen=True, gc=False):
    """The server asks whether we live; answer with ``reply``."""

    reply: bytes


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """A frame that is known and needs no reaction (an acknowledged unsubscription)."""

    what: str
    event_time_ms: int | None


Message = Event | Ack | Refusal | Pong | ServerPing | Ignored


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One REST call: where it goes and what its answer means.

    ``endpoint`` names the budget and breaker it counts against. ``parse`` takes the body and raises
    :class:`~perpwatch.errors.ProtocolError`, :class:`~perpwatch.errors.ApiError` or
    :class:`~perpwatch.errors.RateLimited`.
    """

    endpoint: str
    path: str
    parse: Callable[[bytes], T]
    params: Mapping[str, str | int] | None = None
    weight: float = 1.0  # calls it costs in the request budget


class Adapter(Protocol):
    """The wire language of one exchange."""

    @property
    def name(self) -> str: ...
    @property
    def websocket_url(self) -> str: ...
    @property
    def rest_url(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def timeframes(self) -> Sequence[Timeframe]:
        """Candles the exchange can push or give."""
        ...

    def channel(self, stream: Stream) -> str:
        """The exchange's name for what ``stream`` asks for; acknowledgements carry it."""
        ...

    def subscribe(self, stream: Stream) -> bytes: ...
    def unsubscribe(self, stream: Stream) -> bytes: ...
    def ping(self) -> bytes: ...

    def decode(self, frame: bytes) -> Message:
        """Meaning of one frame, text or gzip.

        Raises:
            ProtocolError: not a message of this exchange.
        """
        ...

    def decode_all(self, frames: Sequence[bytes]) -> list[Message]:
        """:meth:`decode` of frames that were read together, in order.

        Raises:
            ProtocolError: one of them is not a message of this exchange; decode them one by one to know which.
        """
        ...

    def symbol_page(self, symbol: str) -> str:
        """Where a person can trade or look at the contract."""
        ...

    # REST
    def server_time(self) -> Request[int]: ...
    def contracts(self) -> Request[Sequence[Contract]]: ...
    def contract(self, symbol: str) -> Request[Contract]: ...
    def tickers(self) -> Request[Sequence[Ticker]]: ...
    def funding_rates(self) -> Request[Sequence[FundingRate]]: ...
    def candles(self, contract: Contract, timeframe: Timeframe, start_ms: int, end_ms: int) -> Request[CandleHistory]:
        """Candles that open within ``start_ms`` (inclusive) to ``end_ms`` (exclusive), oldest first.

        The running candle is left in; whoever knows the time cuts it.
        """
        ...
