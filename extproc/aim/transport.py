"""Aim over HTTP: one aiohttp session, without anything that a question to Aim has no use for.

No redirects, cookies or decompression; deadlines are the caller's (docs/adr/0009-aiohttp-for-questions.md).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from extproc.errors import DetectionRejected, DetectionUnavailable, Reason
from extproc.values import value

_CONNECTIONS = 1024
_KEEP_ALIVE_SECONDS = 30
_DNS_SECONDS = 10
"""For how long a resolved address is used for new connections."""


@value
class Response:
    """What Aim answered."""

    status: int
    retry_after: str | None
    content: bytes


class Transport:
    """Sends requests whose body is at hand, over connections that it keeps."""

    def __init__(self, tls: ssl.SSLContext | None, proxy: str | None) -> None:
        """Connect by `tls` where a URL asks for it, by way of `proxy`; nothing is connected yet."""
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._options: dict[str, Any] = {"allow_redirects": False}
        if proxy is not None:
            parsed = httpx.Proxy(proxy)
            self._options["proxy"] = URL(str(parsed.url))
            if parsed.auth is not None:
                self._options["proxy_auth"] = aiohttp.BasicAuth(*parsed.auth)

    def _connect(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=_CONNECTIONS,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            ttl_dns_cache=_DNS_SECONDS,
            ssl=self._tls if self._tls is not None else True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # none: deadlines are the caller's
            auto_decompress=False,
        )

    async def send(
        self, method: str, url: URL, headers: Iterable[tuple[str, str]] = (), body: bytes = b"", *, limit: int
    ) -> Response:
        """Return the answer to a request, of which at most `limit` bytes are read.

        Raises DetectionUnavailable where there is none, DetectionRejected for one that is larger.
        """
        if self._session is None:
            self._session = self._connect()
        try:
            response = await self._session.request(
                method, url, headers=CIMultiDict(headers), data=body or None, **self._options
            )
            pieces: list[bytes] = []
            size = 0
            try:
                while size <= limit and (piece := await response.content.readany()):
                    size += len(piece)
                    pieces.append(piece)
            finally:
                response.release()  # or closed, where something of the body is still to come
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise DetectionUnavailable(Reason.UNREACHABLE, "Aim cannot be reached") from error
        if size > limit:
            raise DetectionRejected(Reason.UNREADABLE_ANSWER, "Aim's answer is too large")
        return Response(response.status, response.headers.get("retry-after"), b"".join(pieces))

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
