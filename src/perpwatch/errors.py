"""Everything that can go wrong, and what to do about it.

    PerpwatchError
    ├── ConfigurationError            a key, its value and what would be right; fatal, exit code 2
    ├── StoreError                    the database cannot do what it was asked
    │   ├── StoreUnavailable          disk full, read-only, locked or not reachable: worth another try
    │   ├── StoreVersionError         written by a newer perpwatch, or too old to be read without migrating
    │   └── StoreDamaged              not a database of perpwatch, or one that is broken
    ├── DeliveryError                 a channel did not take a message
    │   ├── DeliveryFailed            worth another try; may say how long to wait
    │   └── DeliveryRefused           the same again will be refused again
    └── ExchangeError                 anything the exchange or the way to it did
        ├── ConnectionFailed          could not be opened
        ├── ConnectionLost            was open and ended
        │   └── StaleConnection       was open and mute
        ├── SubscriptionRejected      the exchange refused a stream
        ├── ProtocolError             a frame or body that means nothing to us
        ├── RequestFailed             a REST call got no usable answer
        │   └── RateLimited           asked too often; says how long to wait
        └── ApiError                  the exchange understood a REST call and said no

Libraries' exceptions become these where the library is imported. :func:`retry_delay` decides what is worth another try.
"""

from __future__ import annotations


class PerpwatchError(Exception):
    """Base of all errors that perpwatch raises on purpose."""


class ConfigurationError(PerpwatchError):
    """A setting that cannot be used."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key} = {value!r}: {expected}")
        self.key = key
        self.value = value
        self.expected = expected


class StoreError(PerpwatchError):
    """The database said no. ``url`` names it, without its password."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class StoreUnavailable(StoreError):
    """The database cannot be read or written just now.

    Attributes:
        trouble: ``full``, ``read_only``, ``locked``, ``unreachable`` or ``broken_disk``.
    """

    def __init__(self, url: str, trouble: str, reason: str) -> None:
        super().__init__(url, reason)
        self.trouble = trouble


class StoreVersionError(StoreError):
    """The schema is not the one this program knows. ``found`` and ``known`` are revisions."""

    def __init__(self, url: str, found: str, known: str, reason: str) -> None:
        super().__init__(url, reason)
        self.found = found
        self.known = known


class StoreDamaged(StoreError):
    """What is at the address is not a database of perpwatch, or it is broken."""


class DeliveryError(PerpwatchError):
    """A channel did not take a message. ``reason`` holds no secret, so that it can be kept and shown."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DeliveryFailed(DeliveryError):
    """Not now: no connection, time out, too many messages, an error of the server.

    Attributes:
        retry_after_s: what the channel asked us to wait, None when it did not say.
        is_whole_service: the wait is for all chats of the service, not for this one alone.
        may_be_shown: no answer came, so that the message may have arrived; False where it surely has not.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after_s: float | None = None,
        is_whole_service: bool = False,
        may_be_shown: bool = True,
    ) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.is_whole_service = is_whole_service
        self.may_be_shown = may_be_shown


class DeliveryRefused(DeliveryError):
    """Never: no such chat, no permission, a message that the channel cannot take."""


class ExchangeError(PerpwatchError):
    """Something between us and the exchange."""


class ConnectionFailed(ExchangeError):
    """A connection could not be opened.

    Attributes:
        status: HTTP status of a refused upgrade, None when there was no answer.
        retry_after_s: what the server asked us to wait, None when it did not say.
    """

    def __init__(self, url: str, reason: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(f"cannot connect to {url}: {reason}")
        self.url = url
        self.reason = reason
        self.status = status
        self.retry_after_s = retry_after_s


class ConnectionLost(ExchangeError):
    """An open connection ended. ``code`` is the WebSocket close code, 1006 when there was none."""

    def __init__(self, reason: str, code: int = 1006) -> None:
        super().__init__(f"connection lost: {reason} (close code {code})")
        self.reason = reason
        self.code = code


class StaleConnection(ConnectionLost):
    """Nothing arrived for ``silence_s`` seconds although we asked."""

    def __init__(self, silence_s: float, what: str) -> None:
        super().__init__(f"no {what} for {silence_s:.0f} s")
        self.silence_s = silence_s


class SubscriptionRejected(ExchangeError):
    """The exchange refused ``stream``, or never answered."""

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"subscription to {stream} refused: {reason}")
        self.stream = stream
        self.reason = reason


class ProtocolError(ExchangeError):
    """A frame or body that cannot be understood. ``frame`` holds its first bytes."""

    KEPT_BYTES = 2_000

    def __init__(self, reason: str, frame: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.frame = frame[: self.KEPT_BYTES]


class RequestFailed(ExchangeError):
    """A REST call without a usable answer: no connection, time out, HTML, empty or truncated body, HTTP error."""

    def __init__(self, url: str, reason: str, *, status: int | None = None) -> None:
        super().__init__(f"request to {url} failed: {reason}")
        self.url = url
        self.reason = reason
        self.status = status


class RateLimited(RequestFailed):
    """The exchange says we ask too often (code 510 or HTTP 429)."""

    def __init__(self, url: str, reason: str, retry_after_s: float, *, status: int | None = None) -> None:
        super().__init__(url, reason, status=status)
        self.retry_after_s = retry_after_s


class ApiError(ExchangeError):
    """The exchange answered a REST call with ``success: false``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the exchange answered code {code}: {message}")
        self.code = code
        self.message = message


FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0


def retry_delay(
    error: Exception,
    attempt: int,
    jitter: float,
    *,
    first_s: float = FIRST_DELAY_S,
    cap_s: float = MAX_DELAY_S,
) -> float | None:
    """Seconds to wait before the next try, or None when trying again cannot help.

    Exponential with full jitter: uniform between 0 and the exponential bound, so that clients cut off together do not
    come back together, also when the bound has reached its cap.

    Args:
        error: what ended the last try.
        attempt: failures in a row so far, counted from 1; the caller resets it on data, not on a handshake.
        jitter: a random number in [0, 1), passed in so that the decision stays deterministic.
    Source: Brooker (2015), Exponential Backoff And Jitter, AWS Architecture Blog.
    """
    if isinstance(error, (ConfigurationError, ApiError, StoreVersionError, StoreDamaged, DeliveryRefused)):
        return None
    # 2**16 seconds is beyond any cap; without the bound a long outage would overflow the float.
    bound = min(cap_s, first_s * 2.0 ** min(attempt - 1, 16))
    delay = bound * jitter
    if isinstance(error, RateLimited):
        return max(delay, error.retry_after_s)
    if isinstance(error, (ConnectionFailed, DeliveryFailed)) and error.retry_after_s is not None:
        return max(delay, error.retry_after_s)
    return delay
