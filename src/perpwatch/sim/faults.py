"""How the simulated exchange misbehaves: one struct of probabilities and switches, and a list of dated events.

With ``Faults()`` it behaves like the real one on a good day. Both come from JSON as well, so a running simulator can be
made worse and better again. Which frame or request is hit follows from the seed.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec

from perpwatch.errors import ConfigurationError

#: What a refused command looks like: a text, nothing at all, or a hang-up.
Refusal = Literal["error", "silence", "close"]
#: What a refused upgrade looks like: an HTTP status or a closed line.
DialRefusal = Literal["403", "429", "close"]
#: How the server hangs up: with a close frame, with one that has no status, or by dropping the line.
HangUp = Literal["1001", "1005", "abrupt"]

EventKind = Literal[
    "drop",  # a connection is closed with a close frame; target: connection
    "drop_abrupt",  # the line of a connection is cut; target: connection
    "half_open",  # nothing comes any more, not even pongs, and nobody hangs up; target: connection
    "silence",  # data stops while pongs go on; target: connection, symbol or topic
    "lost_topic",  # subscriptions are forgotten without a word, until asked for again; target: symbol or topic
    "exchange_down",  # every line is cut, dials and requests are refused
    "hang_up",  # connections are accepted, and closed at the first word of the client
    "rest_510",  # every request is answered with code 510
    "rest_html",  # every request is answered with a page instead of JSON
    "rest_timeout",  # no request is answered
    "listing",  # a contract opens; target: its symbol
    "delisting",  # a contract vanishes; target: its symbol
    "rename",  # a contract changes its name; target: its symbol, text: the new one
    "contract_size",  # one contract becomes worth something else; target: its symbol, value: base coin
    "state",  # a contract is paused (4) or enabled (0); target: its symbol, value: the state
    "pump",  # a planted move from the next minute on; target: its symbol, value: size as a fraction
]

_ABOUT_A_SYMBOL = frozenset(("listing", "delisting", "rename", "contract_size", "state", "pump"))

MALFORMED = ("truncated", "wrong_type", "huge_exponent", "absurd_time", "unknown_channel")


class FaultEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """Something that goes wrong at a time.

    ``target`` names what is hit: ``""`` or ``"all"`` for everything, ``"connection:3"`` for the third connection ever
    made, a symbol, or a topic such as ``"kline:BTC_USDT"`` or ``"tickers"``.
    """

    at_ms: int  # market time; one in the past means at once
    kind: EventKind
    target: str = ""
    duration_ms: int = 0  # of what lasts; 0 for ever
    value: float = 0.0
    text: str = ""
    volume_multiple: float = 40.0  # of a pump

    def __post_init__(self) -> None:
        if self.kind in _ABOUT_A_SYMBOL and "_" not in self.target:
            raise ValueError(f"{self.kind} needs a symbol such as BTC_USDT as its target, not {self.target!r}")
        if self.kind == "rename" and "_" not in self.text:
            raise ValueError(f"rename needs a symbol such as BTC_USDT as its text, not {self.text!r}")
        if self.kind == "contract_size" and not self.value > 0:
            raise ValueError(f"contract_size needs a value above 0, not {self.value!r}")
        if self.kind == "pump" and not (self.value > -1 and self.value):
            raise ValueError(f"pump needs a size above -1 and not 0 as its value, not {self.value!r}")


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can go wrong by itself. Shares are between 0 and 1, of frames, commands or requests."""

    # Frames, each a share of the data frames
    lose: float = 0.0  # never arrives
    duplicate: float = 0.0  # arrives twice
    reorder: float = 0.0  # arrives up to a second late, after its successors
    late: float = 0.0  # a candle's last frame comes again after the next candle has begun
    shrink: float = 0.0  # a running candle's volume is lower than before
    milliseconds: float = 0.0  # candle times in milliseconds
    malformed: float = 0.0  # cut off, wrong types, absurd numbers or unknown channels
    gzip: float = 0.0  # compressed, in a binary frame
    deals_as_object: bool = False  # trades one by one, as before August 2025
    odd_numbers: float = 0.01  # exponent form and trailing zeros; part of a good day
    reorder_ms: int = 1_000  # the most a reordered frame waits

    # Connections
    drops_per_hour: float = 0.0  # of each connection, evenly spread
    drop_hang_up: HangUp = "1001"
    heartbeat_timeout_s: float = 60.0
    heartbeat_hang_up: HangUp = "1005"
    lifetime_s: float | None = None  # after which a connection is cut
    max_connections: int | None = None
    dial_refusal: DialRefusal = "429"
    max_subscriptions: int | None = None  # of one connection
    max_commands_per_second: int | None = None  # of one connection, pings included
    limit_refusal: Refusal = "error"
    refuse_subscriptions: float = 0.0
    refusal: Refusal = "error"
    hang_up_without_symbol: bool = True  # a subscription without a symbol costs the connection
    acknowledge_unsubscribe: bool = False  # conflicting reports; the real one seems to say nothing

    # REST
    rest_limits: bool = True  # the documented requests per 2 s of each endpoint
    max_requests_per_2s: int | None = None  # of all endpoints together
    rest_510: float = 0.0
    rest_429: float = 0.0  # with Retry-After
    retry_after_s: int = 5
    rest_403: float = 0.0  # a page of the web firewall
    rest_html: float = 0.0  # a page with status 200
    rest_empty: float = 0.0
    rest_truncated: float = 0.0
    rest_redirect: float = 0.0
    rest_timeout: float = 0.0
    rest_delay_ms: int = 0  # added to every answer
    rest_lag_ms: int = 0  # age of the candles that REST shows
    flat_empty_minutes: bool = False  # minutes without trades appear as rows without volume

    # Dated
    events: tuple[FaultEvent, ...] = ()

    @property
    def touches_frames(self) -> bool:
        """Whether a frame may need more than sending, each client's on its own."""
        return bool(self.lose or self.duplicate or self.reorder or self.malformed or self.gzip)


_SHARES = (
    *("lose", "duplicate", "reorder", "late", "shrink", "milliseconds", "malformed", "gzip", "odd_numbers"),
    *("refuse_subscriptions", "rest_510", "rest_429", "rest_403", "rest_html", "rest_empty", "rest_truncated"),
    *("rest_redirect", "rest_timeout"),
)


def changed(faults: Faults, changes: dict[str, Any]) -> Faults:
    """``faults`` with some fields replaced, as they come from JSON.

    Raises:
        ConfigurationError: an unknown field or a value it cannot have.
    """
    known = Faults.__struct_fields__
    for name in changes:
        if name not in known:
            raise ConfigurationError(f"faults.{name}", changes[name], f"unknown; known are {', '.join(known)}")
    merged = {**msgspec.to_builtins(faults), **changes}
    try:
        result = msgspec.convert(merged, Faults)
    except msgspec.ValidationError as error:
        raise ConfigurationError("faults", changes, str(error)) from error
    for name in _SHARES:
        share = cast(float, getattr(result, name))
        if not 0.0 <= share <= 1.0:
            raise ConfigurationError(f"faults.{name}", share, "a share between 0 and 1")
    return result


def decoded(body: bytes, faults: Faults) -> Faults:
    """``faults`` changed by a JSON object of fields.

    Raises:
        ConfigurationError: not a JSON object, an unknown field, or a value it cannot have.
    """
    try:
        changes = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigurationError("faults", body[:200].decode(errors="replace"), f"a JSON object: {error}") from error
    return changed(faults, changes)
