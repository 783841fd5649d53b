"""What follows from the settings alone: the exchange's language, its limits, and who is chosen to be watched."""

from __future__ import annotations

import logging

from msgspec.structs import replace

from perpwatch.app.config import Config
from perpwatch.exchanges.adapter import Adapter, Limits
from perpwatch.exchanges.mexc import MexcFutures, corrected_websocket_url
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.market.universe import UniverseFilter

logger = logging.getLogger(__name__)


def adapter_for(config: Config) -> Adapter:
    """The wire language of the configured exchange, at the configured addresses."""
    url, warning = corrected_websocket_url(config.websocket.base_url)
    if warning:
        logger.warning("websocket.base_url: %s", warning)
    return MexcFutures(websocket_url=url, rest_url=config.rest.base_url, limits=limits_of(config))


def limits_of(config: Config) -> Limits:
    """The exchange's limits as the configuration has them."""
    websocket = config.websocket
    return replace(
        LIMITS,
        max_connections=websocket.max_connections,
        max_subscriptions_per_connection=websocket.max_subscriptions_per_connection,
        ping_interval_s=websocket.ping_interval,
        connection_lifetime_s=websocket.connection_lifetime,
        commands_per_second=websocket.commands_per_second,
        dials_per_second=websocket.dials_per_second,
        requests_per_second=config.rest.requests_per_second,
    )


def universe_filter(config: Config) -> UniverseFilter:
    return UniverseFilter(**dict(config.universe))
