"""What MEXC Futures allows, or what we allow ourselves where it does not say.

Each number stands with its reason and a grade: *official* (the exchange's documentation), *measured* (seen on the live
exchange by somebody who wrote down when), *chosen* (ours).
"""

from __future__ import annotations

from perpwatch.exchanges.adapter import Limits

# Chosen. No official figure exists; 37 connections from one address have been measured. Ten is polite.
MAX_CONNECTIONS = 10

# Chosen. No official figure exists; 200 on one connection have been measured (2026-06-28). The often quoted 30 is the
# spot market's. The planner fills connections less than this, to have room for repairs.
MAX_SUBSCRIPTIONS_PER_CONNECTION = 100

# Official: "no ping for 1 minute" closes the connection, and a ping every 10-20 s is recommended. Measured: closed
# after 60-70 s also while data flows. 30 s would leave one lost ping between life and death; 15 s leaves three.
PING_INTERVAL_S = 15.0

# Chosen: two pings unanswered, and still 25 s before the server would give up on us.
PONG_TIMEOUT_S = 35.0

# Measured: acknowledgements arrive within about 100 ms, an unknown method is never answered (12 s waited).
ACK_TIMEOUT_S = 5.0

# Chosen. No official figure exists; 20 per second for 150 contracts went without a gap (measured 2026-09-15).
COMMANDS_PER_SECOND = 10.0

# Chosen. No official figure exists; some 37 connections opened together were accepted once (measured).
DIALS_PER_SECOND = 1.0

# Chosen. A cut after 24 h is documented for the spot market only; leaving an hour earlier costs nothing.
CONNECTION_LIFETIME_S = 23 * 3600.0

# Measured: the first push.tickers is 351 KB for 1,269 rows. 4 MiB leaves room for twelve times the market.
MAX_FRAME_BYTES = 4 * 1024 * 1024

# Chosen: a frame that inflates beyond this is not a message but an attack or a fault.
MAX_INFLATED_BYTES = 16 * 1024 * 1024

# Official: 20 calls per 2 s for most endpoints, 10 per 2 s for detail, ticker and depth. Measured: half of 120 calls
# made at 10 per second were refused with code 510. 5 per second for everything satisfies the strictest endpoint.
REQUESTS_PER_SECOND = 5.0

# Measured: all calls of a client were paused for 10 s after code 510, and then succeeded; the exchange itself names no
# time (no Retry-After header).
RATE_LIMIT_PAUSE_S = 10.0

# Official, and measured to be the *latest* 2,000 of the window asked for.
MAX_CANDLES_PER_REQUEST = 2_000

# Measured: 1,992 rows came for a window that held more, so an answer this long must count as cut.
FULL_ANSWER_ROWS = 1_990

LIMITS = Limits(
    max_connections=MAX_CONNECTIONS,
    max_subscriptions_per_connection=MAX_SUBSCRIPTIONS_PER_CONNECTION,
    commands_per_second=COMMANDS_PER_SECOND,
    dials_per_second=DIALS_PER_SECOND,
    ping_interval_s=PING_INTERVAL_S,
    pong_timeout_s=PONG_TIMEOUT_S,
    ack_timeout_s=ACK_TIMEOUT_S,
    connection_lifetime_s=CONNECTION_LIFETIME_S,
    max_frame_bytes=MAX_FRAME_BYTES,
    requests_per_second=REQUESTS_PER_SECOND,
    max_candles_per_request=MAX_CANDLES_PER_REQUEST,
)
