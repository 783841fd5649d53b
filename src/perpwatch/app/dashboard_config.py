"""The ``[dashboard]`` table of the configuration."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

#: A token of fewer characters could be guessed.
MIN_TOKEN_LENGTH = 16
_FITS_A_HEADER = re.compile(r"[!-~]+")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class DashboardConfig(BaseModel):
    """Where pages and API are served, and to whom."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = True
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8765  # 0 takes a free one
    token: SecretStr | None = None  # for actions; on another address than loopback also for looking
    refresh_interval: Annotated[float, Field(ge=0.2, le=10)] = 1.0  # seconds between two pictures of the market
    max_clients: Annotated[int, Field(ge=1, le=10_000)] = 100  # live streams at once

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        if self.token is None:
            if self.enabled and not is_loopback(self.host):
                raise ValueError(
                    f"{self.host} can be reached from other machines, which demands a token: set dashboard.token, "
                    "or keep host = 127.0.0.1"
                )
        elif len(self.token.get_secret_value()) < MIN_TOKEN_LENGTH:
            raise ValueError(f"token: give at least {MIN_TOKEN_LENGTH} characters")
        elif not _FITS_A_HEADER.fullmatch(self.token.get_secret_value()):
            raise ValueError("token: use printable ASCII without spaces, as it goes into a header")
        return self
