"""The upstreams of a rendered Envoy: `[PREFIX=]URL` on the command line."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Upstream:
    """A model's server, and the paths that are routed to it.

    `prefix` is matched as text, not by segments. `path`, if the URL has one beyond `/`, replaces the prefix in the
    path of the request.
    """

    prefix: str
    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Read `[PREFIX=]URL`; without a prefix it is `/`.

        Raises ValueError, with a sentence for the operator, for anything else.
        """
        prefix, equals, url = text.partition("=") if text.startswith("/") else ("/", "=", text)
        if not equals or not re.fullmatch(r"/[^\s?#%]*", prefix):
            raise ValueError("an upstream is [PREFIX=]URL; the prefix is a plain path that starts with /")
        parts, port = _split(url)
        if port == 0:
            raise ValueError("an upstream's port is 1 to 65535")
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("an upstream's URL starts with http:// or https:// and names a host")
        if not re.fullmatch(r"[0-9a-z._-]+|[0-9a-f:.]+", parts.hostname):
            raise ValueError("an upstream's host is a DNS name or an IP address")
        if parts.username is not None or parts.query or parts.fragment or re.search(r"[\s%?#]", url):
            raise ValueError("an upstream's URL has no user, no query and no fragment")
        path = parts.path if parts.path != "/" else ""
        return cls(prefix, parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme], path)

    @property
    def authority(self) -> str:
        """The host header that the server expects."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, without a default port."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def cluster(self) -> str:
        """The name of its Envoy cluster; upstreams on one server share it."""
        return f"{self.scheme}-{self.host.replace(':', '_')}-{self.port}"

    @property
    def prefix_rewrite(self) -> str:
        """The replacement for the prefix in the path; empty if the path stays unchanged."""
        if not self.path:
            return ""
        # Both end with a slash or neither does; otherwise segments would be joined or slashes doubled.
        return self.path.rstrip("/") + ("/" if self.prefix.endswith("/") else "")


def is_ip(host: str) -> bool:
    """Return whether `host` is an IP address and not a DNS name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError as error:
        raise ValueError("an upstream's URL cannot be parsed") from error
