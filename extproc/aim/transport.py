"""Aim over HTTP/1.1: the connections that are kept, those that are opened, and the proxy that they go by.

No redirects, cookies, decompression or pipelining, which a question to Aim has no use for; deadlines are the caller's
(docs/adr/0011-http-of-our-own.md).
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType
from yarl import URL

from extproc import __version__
from extproc.aim.connection import Connection, Response, unreachable
from extproc.core.errors import DetectionUnavailable

_CONNECTIONS = 1024
"""Requests that are under way at the same time, at most; others wait for their turn."""

_IDLE_SECONDS = 30.0
"""For how long a connection is kept: most servers keep theirs longer."""

_NEXT_ADDRESS_SECONDS = 0.25
"""After which the next address of a name is tried beside the one before (RFC 8305)."""

_ADDRESS_SECONDS = 10.0
"""For how long the addresses of a name are used for new connections."""

_CONNECT_BYTES = 65_536

_ENDED_SECONDS = 0.5
"""A connection that ended while it was idle shows that a round trip after the request; Aim's own work takes longer."""

_REQUEST_TIMEOUT = 408
"""What some servers say of a connection that was idle, and close it: to the request that comes meanwhile."""

_FIELDS = (("user-agent", f"aim-extproc/{__version__}"), ("accept", "*/*"))
"""Some firewalls refuse a request without."""


class Transport:
    """Sends requests whose body is at hand to one origin."""

    def __init__(
        self,
        base: URL,
        tls: ssl.SSLContext | None,
        proxy: str | None = None,
        proxy_tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connect to the origin of `base`, by `tls` if that is given; nothing is connected yet.

        By way of `proxy`, if that is given, and `proxy_tls` to it, if that is.
        """
        self._host = base.raw_host or ""
        self._port = base.port or 0
        self._tls = tls
        self._proxy = URL(proxy) if proxy is not None else None
        self._proxy_tls = proxy_tls
        self._login = _login(proxy)
        self._authority = base.host_port_subcomponent or ""
        # To a proxy that is not to connect us through, a request names the whole URL.
        self._origin = f"http://{self._authority}" if self._proxy is not None and tls is None else ""
        self._idle: list[Connection] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._names = _Addresses()
        self._is_closed = False

    async def send(
        self, method: str, url: URL, headers: Iterable[tuple[str, str]] = (), body: bytes | None = None, *, limit: int
    ) -> Response:
        """Return the response to a request for `url`, of which at most `limit` bytes are read.

        Raises DetectionUnavailable where there is none, DetectionRejected for one that is larger.
        """
        target = f"{self._origin}{url.raw_path}"
        own = self._login if self._origin else ()
        length = () if body is None else (("content-length", str(len(body))),)
        head = _head(f"{method} {target} HTTP/1.1", (("host", self._authority), *_FIELDS, *own, *headers, *length))
        await self._turns.acquire()
        try:
            if method == "HEAD":
                # Its connection cannot be kept: those that are, are for questions.
                return await self._ask(await self._connect(), head, b"", limit, has_body=False)
            connection = self._kept()
            if connection is not None:
                response = await self._ask_kept(connection, head, body or b"", limit)
                if response is not None:
                    return response
            return await self._ask(await self._connect(), head, body or b"", limit)
        finally:
            self._turns.release()

    async def _ask_kept(self, connection: Connection, head: bytes, body: bytes, limit: int) -> Response | None:
        """Return the response over a connection that was idle, None if it ended before the request came.

        Its peer may end it at any time, and some say that they do. Whoever takes longer may have worked on the request:
        whether it is asked again is the caller's to decide then.
        """
        loop = asyncio.get_running_loop()
        asked = loop.time()
        try:
            response = await self._ask(connection, head, body, limit)
        except DetectionUnavailable:
            if connection.has_been_answered or loop.time() - asked > _ENDED_SECONDS:
                raise
            return None
        is_late = response.status == _REQUEST_TIMEOUT and not connection.is_reusable
        return None if is_late and loop.time() - asked <= _ENDED_SECONDS else response

    async def _ask(
        self, connection: Connection, head: bytes, body: bytes, limit: int, *, has_body: bool = True
    ) -> Response:
        try:
            return await connection.ask(head, body, limit=limit, has_body=has_body)
        finally:
            if connection.is_reusable and not self._is_closed:
                self._keep(connection)
            else:
                connection.close()

    # -- the connections that are kept ---------------------------------------------------------------------------

    def _kept(self) -> Connection | None:
        """Return the connection that was kept last, if any can be used."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and now - connection.idle_since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(_IDLE_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        """Close what nobody needed for a while; the list begins with those."""
        loop = asyncio.get_running_loop()
        since = loop.time() - _IDLE_SECONDS
        idle, self._idle = self._idle, []
        for connection in idle:
            if connection.is_reusable and connection.idle_since > since:
                self._idle.append(connection)
            else:
                connection.close()
        self._sweep = loop.call_later(_IDLE_SECONDS, self._close_idle) if self._idle else None

    async def aclose(self) -> None:
        """Close every connection that is idle; those that are in use are closed when they are not."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._names.forget()
        while self._idle:
            self._idle.pop().close()

    # -- those that are opened -----------------------------------------------------------------------------------

    async def _connect(self) -> Connection:
        """Return a new connection; raises DetectionUnavailable."""
        try:
            if self._proxy is None:
                return await self._open(self._host, self._port, self._tls)
            connection = await self._open(self._proxy.raw_host or "", self._proxy.port or 0, self._proxy_tls)
            if self._tls is not None:
                await self._tunnel(connection, self._tls)
            return connection
        except (OSError, UnicodeError) as error:  # ssl's are OSErrors; a name that is none is the latter
            raise unreachable() from error

    async def _tunnel(self, connection: Connection, tls: ssl.SSLContext) -> None:
        """Have the proxy connect us through, and secure what goes through it."""
        authority = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        head = _head(f"CONNECT {authority} HTTP/1.1", (("host", authority), *self._login))
        try:
            response = await connection.ask(head, b"", limit=_CONNECT_BYTES, has_body=False)
            if not 200 <= response.status < 300:
                raise unreachable(f"a proxy refuses to connect (HTTP {response.status})")
            await connection.start_tls(tls, self._host)
        except BaseException:
            connection.close()
            raise

    async def _open(self, host: str, port: int, tls: ssl.SSLContext | None) -> Connection:
        """Return a connection to a host; raises OSError."""
        addresses = await self._names.of(host, port)
        while True:
            sock = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1
            )
            peer = _peer(sock) or addresses[0][4]
            try:
                return await _over(sock, host, tls)
            except OSError:
                # A balancer with nobody behind it takes connections, too: on to the next address.
                others = [each for each in addresses if each[4][:2] != peer[:2]]
                if not others or len(others) == len(addresses):
                    raise
                addresses = others


def _peer(sock: socket.socket) -> tuple[Any, ...] | None:
    """Return where a socket is connected to, None if it no longer is."""
    try:
        return tuple(sock.getpeername())
    except OSError:
        return None


async def _over(sock: socket.socket, host: str, tls: ssl.SSLContext | None) -> Connection:
    """Return the connection over a socket that is connected; raises OSError."""
    connection = Connection()
    try:
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
        if tls is not None:
            await connection.start_tls(tls, host)
    except BaseException:
        connection.close()
        sock.close()
        raise
    return connection


class _Addresses:
    """The addresses of the one name that is connected to, looked up once for all who wait for them."""

    def __init__(self) -> None:
        self._known: list[AddrInfoType] = []
        self._until = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def of(self, host: str, port: int) -> list[AddrInfoType]:
        """Return them, each time beginning with another; raises OSError, or UnicodeError for what is no name."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._until:
            if self._looking is None:
                self._looking = loop.create_task(self._look_up(host, port))
                # Those who waited for it may have given up before it failed.
                self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Whoever gives up does not end it for the others, nor keep it from being known.
            await asyncio.shield(self._looking)
        self._known.append(self._known.pop(0))
        return list(self._known)

    def forget(self) -> None:
        """End the looking up."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look_up(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._known = [*await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
            self._until = loop.time() + _ADDRESS_SECONDS
        finally:
            self._looking = None


def _login(proxy: str | None) -> tuple[tuple[str, str], ...]:
    """Return the header field for the user and password that a proxy's URL holds."""
    parts = urlsplit(proxy or "")
    if parts.username is None:
        return ()
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return (("proxy-authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"),)


def _head(first: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a request; raises ValueError for what would be more than one line."""
    lines = [first, *[f"{name}: {value}" for name, value in fields], "\r\n"]
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise ValueError("a header field of more than one line")
    return text.encode()
