"""How to reach Aim."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, Field, SecretStr, field_validator

from extproc.config.key_file import is_key
from extproc.config.model import Model

DEFAULT_BASE_URLS = {
    "detect": "https://api.aim.security",
    "firewall": "https://api.aim.security",
    "cato": "https://api.aisec.catonetworks.com",
}


class Breaker(Model):
    """The circuit breaker: when to stop calling an Aim that does not answer, and for how long."""

    failures: Annotated[int, Field(ge=1, le=10_000)] = 10
    """opens after this many consecutive timeouts, connection errors or 5xx; REST and websocket count separately"""
    open_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    """how long an open breaker stops calls to Aim; after that one trial call tests whether Aim answers again"""


def _clean_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    if key and not is_key(key):
        raise ValueError("the key contains characters that an HTTP header cannot carry")
    return SecretStr(key)


def checked_url(value: str) -> str:
    """Return the http or https URL of a server without a trailing slash; raise ValueError for anything else."""
    if not re.fullmatch(r"https?://[^\s/?#\\]+(/[^\s?#]*)?", value):
        raise ValueError("a URL starts with http:// or https:// and has no query")
    try:
        is_whole = bool(httpx.URL(value).host) and urlsplit(value).port != 0
    except (ValueError, httpx.InvalidURL):
        is_whole = False
    if not is_whole:
        raise ValueError("a URL needs a host; a port is 1 to 65535")
    return value.rstrip("/")


class Aim(Model):
    """How to reach Aim."""

    api: Literal["detect", "firewall", "cato"] = "detect"
    """detect only allows or blocks prompts and JSON answers; firewall, and cato for Cato Networks, also redact them"""
    base_url: str | None = None
    """default: https://api.aim.security; with api: cato, https://api.aisec.catonetworks.com"""
    api_key: Annotated[SecretStr, AfterValidator(_clean_key)] = SecretStr("")
    """prefer AIM_API_KEY or api_key_file; wins over api_key_file if both are set; never printed"""
    api_key_file: Path | None = None
    """re-read when it changes; AIM_API_KEY or AIM_API_KEY_FILE replaces this setting and api_key"""
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5
    """the limit for one detection, retries included, and for opening a session"""
    verdict_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 15
    """how long Aim may send no verified chunk in a session while text waits, or after the end of the stream"""
    breaker: Breaker = Breaker()
    """the circuit breaker"""
    proxy: str | None = None
    """http or https URL, for REST and websocket; default: the environment's HTTPS_PROXY, HTTP_PROXY and NO_PROXY"""
    ca_file: Path | None = None
    """PEM; CA certificates for https, wss and an https proxy; default: the system's"""
    verify: bool = True
    """false trusts any certificate"""

    @field_validator("base_url", "proxy")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return checked_url(value) if value else None

    @field_validator("base_url")
    @classmethod
    def _no_login(cls, value: str | None) -> str | None:
        if value and urlsplit(value).username is not None:
            raise ValueError("a base URL must not contain a user and password")
        return value

    @property
    def base(self) -> str:
        """The base URL that applies, without a trailing slash."""
        return self.base_url or DEFAULT_BASE_URLS[self.api]
