"""How this process reaches Aim: the TLS context and the proxy, from the settings and the environment."""

from __future__ import annotations

import ssl
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from extproc.aim.names import Names
from extproc.aim.transport import AiohttpTransport
from extproc.config.aim import Aim, checked_url
from extproc.core.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Network:
    """The TLS context for Aim and for an https proxy, and the proxy's URL if there is a proxy.

    REST and websocket use the same two.
    """

    tls: ssl.SSLContext
    proxy: str | None

    @classmethod
    def of(cls, aim: Aim) -> Network:
        """Return the network that `aim`, or else the environment, describes.

        Raises SettingsError for a CA file or a proxy that cannot be used.
        """
        tls = _tls_context(aim.ca_file, verify=aim.verify)
        return cls(tls, _with_password(aim.proxy or environment_proxy(aim.base)))

    def transport(self, names: Names | None = None) -> AiohttpTransport:
        """Return a new transport for REST, with look-ups by `names`."""
        return AiohttpTransport(self.tls, None if self.proxy is None else httpx.Proxy(self.proxy), names=names)

    async def routes(self, url: str, names: Names) -> list[dict[str, Any]]:
        """Return how a websocket may connect to `url`: the same for each address of the server or the proxy.

        The library would look up names itself. Raises OSError.
        """
        parts = urlsplit(self.proxy or url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme in ("https", "wss") else 80)
        addresses = await names.addresses(host, port)
        if self.proxy is None:
            return [{"proxy": None, "host": address, "port": port} for address in addresses]
        login, at, _ = parts.netloc.rpartition("@")
        proxy_tls = {"proxy_ssl": self.tls, "proxy_server_hostname": host} if parts.scheme == "https" else {}
        return [
            {"proxy": parts._replace(netloc=f"{login}{at}{_in_url(address)}:{port}").geturl(), **proxy_tls}
            for address in addresses
        ]

    def tls_for(self, url: str | None) -> ssl.SSLContext | None:
        """Return the TLS context for `url`, None if its scheme needs none."""
        return self.tls if url is not None and url.startswith(("https:", "wss:")) else None


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _tls_context(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:  # SSLError among them
        raise SettingsError([f"aim.ca_file: {ca_file} holds no certificates that can be used"]) from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _with_password(proxy: str | None) -> str | None:
    """Return the proxy's URL, with an empty password after a user without one: websockets requires both or neither."""
    parts = urlsplit(proxy or "")
    if proxy is None or parts.username is None or parts.password is not None:
        return proxy
    user, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:@{place}").geturl()


def environment_proxy(base: str) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY give for `base`.

    Raises SettingsError for a value that is not the URL of a proxy.
    """
    parts = urlsplit(base)
    with suppress(OSError):
        if urllib.request.proxy_bypass(parts.netloc):
            return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    try:
        return checked_url(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError as error:
        name = f"{parts.scheme.upper()}_PROXY"
        raise SettingsError([f"aim.proxy: {name} in the environment is not the URL of a proxy"]) from error
