"""HTTP/1.1 for httpx, carried by aiohttp: the one transport of this package.

aiohttp parses and pools connections, resolves names and connects through proxies. This module translates: an
`httpx.Request` into aiohttp's call, aiohttp's response and exceptions into httpx's. It follows no redirect, keeps no
cookie and decodes no body. docs/adr/0012-httpx-over-aiohttp.md compares the alternatives.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import aiohttp
import httpx

from extproc.aim.names import Names

Fields = list[tuple[str, str]]
"""Header fields in order, as (name, value)."""

PREPARED = "prepared"
"""The request extension with a `Prepared`."""

NO_FIELDS: Final = httpx.Headers()
"""Header fields for `httpx.Request` and `httpx.Response`, which take half as long to copy them as to find none."""

UNCOUNTED_BYTES = 4096
"""A response of at most this size is not counted while it is read: hardly any is larger."""


def ignore(_: int) -> None:
    """Drop a number of bytes."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, its text, and the name in its server's certificate."""

    url: httpx.URL
    text: str
    server_name: str

    @classmethod
    def of(cls, url: httpx.URL) -> Target:
        """Return the target for `url`."""
        return cls(url, str(url), url.raw_host.decode().rstrip("."))  # no certificate holds the dot of the DNS root


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a request needs, as aiohttp takes it, in place of the request's own URL and header fields.

    `httpx.URL` and `httpx.Headers` encode what they are given, and aiohttp would have it decoded again. For the same
    reason the response comes with its whole content, of at most `limit` bytes, and if its status is 2xx without its
    header fields, unless it has a content-encoding.

    `on_held` is called with the bytes that are held more and, if the response fails, with as many below zero. Who gets
    a content of more than `UNCOUNTED_BYTES` must report its end.
    """

    target: Target
    fields: Fields
    limit: int
    on_held: Callable[[int], None] = ignore


_PIECEWISE_BYTES = 1_048_576
"""A larger body is written piece by piece."""

_NO_TIMEOUT = aiohttp.ClientTimeout()

_ERRORS = (aiohttp.ClientError, OSError, ValueError)
"""What aiohttp raises for a request: its own errors, the network's (timeouts too), a header field of two lines."""


class ProxyRefused(httpx.ProxyError):
    """The proxy answered a CONNECT request with `status` instead of a tunnel."""

    def __init__(self, status: int) -> None:
        """Keep the HTTP status of the proxy's answer."""
        super().__init__(f"the proxy refuses to connect (HTTP {status})")
        self.status = status


class ContentTooLarge(httpx.ReadError):
    """The response has more bytes than `Prepared.limit`."""


class ServerDisconnected(httpx.RemoteProtocolError):
    """The server closed or reset the connection without an answer, as it does with one that was idle for too long."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends requests through aiohttp, and through `proxy` if there is one.

    `tls` verifies https servers and an https proxy; without it the system's CAs are trusted. The request's `timeout`
    extension, which `httpx.AsyncClient` sets, bounds connecting and reading; without it the caller sets the deadline.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        proxy: httpx.Proxy | None = None,
        *,
        names: Names | None = None,
        connections: int = 1024,
        idle_seconds: float = 30.0,
    ) -> None:
        """Prepare to send requests, with look-ups by `names`; the first request opens the first connection.

        At most `connections` requests are under way, further ones wait. An idle connection is kept for `idle_seconds`;
        most servers keep theirs longer.
        """
        self._tls = tls
        self._names = names or Names()
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._proxy = None if proxy is None else str(proxy.url)
        self._login = _login(proxy)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response as soon as its header fields have arrived; for a `Prepared` request, once it is whole.

        Raises httpx.TransportError.
        """
        prepared: Prepared | None = request.extensions.get(PREPARED)
        if prepared is None:
            response = await self._send(request, Target.of(request.url), request.headers.multi_items())
            return httpx.Response(
                response.status, headers=response.raw_headers, stream=_Body(response), request=request
            )
        response = await self._send(request, prepared.target, prepared.fields)
        content = await _content(response, prepared.limit, prepared.on_held)
        is_usual = 200 <= response.status < 300 and "content-encoding" not in response.headers
        headers = NO_FIELDS if is_usual else response.raw_headers
        return httpx.Response(response.status, headers=headers, stream=httpx.ByteStream(content), request=request)

    async def _send(self, request: httpx.Request, target: Target, fields: Fields) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = self._new_session()
        proxy_headers = None
        if self._login is not None:
            # aiohttp sends `proxy_headers` with CONNECT only.
            proxy_headers = {"proxy-authorization": self._login}
            if request.url.scheme == "http":
                fields = [*fields, ("proxy-authorization", self._login)]
        stream = request.stream
        body = b"".join(stream) if isinstance(stream, httpx.ByteStream) else await request.aread()
        # aiohttp writes a file piece by piece, and bytes at once, however many: it warns against that.
        data = BytesIO(body) if len(body) > _PIECEWISE_BYTES else aiohttp.BytesPayload(body) if body else None
        turns: list[None] = []
        asyncio.get_running_loop().call_soon(turns.append, None)
        try:
            response = await self._session.request(
                request.method,
                target.text,
                headers=fields,
                data=data,
                allow_redirects=False,
                timeout=_timeout(request),
                proxy=self._proxy,
                proxy_headers=proxy_headers,
                server_hostname=target.server_name,
            )
        except _ERRORS as error:
            raise _mapped(error) from error
        if not turns:
            # The event loop has not run since: these bytes came while the connection was idle. aiohttp does not check.
            response.close()
            raise httpx.RemoteProtocolError("the server sent an answer before the request")
        return response

    def _new_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=self._tls or True,
            limit=self._connections,
            keepalive_timeout=self._idle_seconds,
            resolver=self._names,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=_NO_TIMEOUT,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class _Body(httpx.AsyncByteStream):
    """The body of a response, as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while data := await content.readany():
                yield data
        except _ERRORS as error:
            self._response.close()
            raise _mapped(error) from error

    async def aclose(self) -> None:
        """Close the connection unless the body was read to its end; aiohttp keeps it in that case."""
        self._response.close()


async def _content(response: aiohttp.ClientResponse, limit: int, on_held: Callable[[int], None]) -> bytes:
    """Return the whole body; raises ContentTooLarge and httpx.TransportError."""
    content = response.content
    pieces: list[bytes] = []
    size = held = 0
    try:
        while data := await content.readany():
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise ContentTooLarge("the response is too large")
            if size > UNCOUNTED_BYTES:
                on_held(size - held)
                held = size
    except BaseException as error:
        if held:
            on_held(-held)
        if isinstance(error, _ERRORS):
            raise _mapped(error) from error
        raise
    finally:
        response.close()  # aiohttp keeps the connection of a body that was read to its end
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _login(proxy: httpx.Proxy | None) -> str | None:
    """Return the `proxy-authorization` for the user and password in the proxy's URL."""
    if proxy is None or proxy.auth is None:
        return None
    user, password = proxy.auth
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    seconds = request.extensions.get("timeout")
    if seconds is None:
        return _NO_TIMEOUT
    return aiohttp.ClientTimeout(connect=seconds["pool"], sock_connect=seconds["connect"], sock_read=seconds["read"])


def _mapped(error: Exception) -> httpx.TransportError:
    """Return httpx's exception for the same fault."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return ProxyRefused(error.status)
        case aiohttp.ClientProxyConnectionError():
            return httpx.ProxyError("no connection to the proxy")
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout("no connection in time")
        case TimeoutError():
            return httpx.ReadTimeout("no answer in time")
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError("no connection")
        case (
            aiohttp.ServerDisconnectedError()
            | ConnectionResetError()
            | BrokenPipeError()
            | aiohttp.ClientOSError(errno=errno.ECONNRESET | errno.EPIPE)
        ):
            return ServerDisconnected("the server closed the connection without an answer")
        case aiohttp.ClientPayloadError():
            return httpx.RemoteProtocolError("the answer is incomplete or malformed")
        case aiohttp.ClientResponseError():  # a malformed head
            return httpx.RemoteProtocolError("the answer is not HTTP")
        case aiohttp.InvalidURL():
            return httpx.UnsupportedProtocol("not the URL of an HTTP server")
        case OSError():
            return httpx.ReadError("the connection broke")
        case _:
            return httpx.LocalProtocolError("the request cannot be sent")
