"""Addresses in the configuration."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import AfterValidator


def is_url(*schemes: str) -> AfterValidator:
    """A check that a setting is an address with one of these schemes; a slash at its end is cut off."""

    def check(url: str) -> str:
        expected = f"give an address like {schemes[-1]}://host:port/path"
        try:
            parts = urlsplit(url)
            port = parts.port  # refuses what is no port
        except ValueError as error:
            raise ValueError(f"{error}; {expected}") from error
        if parts.scheme not in schemes or not parts.hostname or port == 0 or any(map(str.isspace, url)):
            raise ValueError(expected)
        return url.rstrip("/")

    return AfterValidator(check)
