"""One HTTP/1.1 connection to Aim: a request at a time goes out, its response comes back. Parsed by llhttp (httptools).

Nobody waits here for what a peer may never say: deadlines are the caller's, and who gives up a request closes its
connection.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

import httptools

from extproc.core.errors import DetectionError, DetectionRejected, DetectionUnavailable, Reason
from extproc.core.values import value

_HEAD_BYTES = 65_536
"""A response's head may be so large, and whatever else is no part of its body."""

_FRAMING = 8
"""Bytes on the wire for each byte of a body, at most: in chunks of one byte it takes six."""

_SWITCHING = 101
"""HTTP ends here: no other response follows."""


@value
class Response:
    """What Aim answered."""

    status: int
    retry_after: str | None
    content: bytes


def unreachable(text: str = "Aim cannot be reached") -> DetectionUnavailable:
    """Return the error of a request that got no answer."""
    return DetectionUnavailable(Reason.UNREACHABLE, text)


class Connection(asyncio.Protocol):
    """The protocol of one connection, from its first request to its end."""

    __slots__ = (
        "_answer",
        "_content",
        "_has_body",
        "_has_head",
        "_is_delimited",
        "_is_reusable",
        "_limit",
        "_parser",
        "_received",
        "_retry_after",
        "_size",
        "_status",
        "_transport",
        "_wire",
        "idle_since",
    )

    def __init__(self) -> None:
        """Begin with nothing connected."""
        self._transport: asyncio.Transport | None = None
        self._wire: asyncio.Transport | None = None  # what TLS, if any, writes to
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._is_reusable = True
        self._has_body = True
        self._limit = 0
        self._received = 0
        self.idle_since = 0.0
        """When it was last kept for a further request, by the loop's clock."""

    @property
    def is_reusable(self) -> bool:
        """Tell whether another request may be sent: the last left whole and was answered whole, and both sides stay."""
        transport, wire = self._transport, self._wire
        return (
            self._is_reusable
            and self._answer is None
            and transport is not None
            and wire is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
            and not wire.get_write_buffer_size()
        )

    @property
    def has_been_answered(self) -> bool:
        """Tell whether anything has come back since the last request."""
        return bool(self._received)

    def ask(self, head: bytes, body: bytes, *, limit: int, has_body: bool = True) -> asyncio.Future[Response]:
        """Send a request; return what will be its response, of whose body at most `limit` bytes are taken.

        `has_body` is False for a request whose response has none whatever its head says: HEAD, CONNECT.
        """
        assert self._answer is None
        assert self._transport is not None
        if self._transport.is_closing():
            raise unreachable()
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._limit, self._has_body, self._received, self._size = limit, has_body, 0, 0
        self._has_head = False
        if len(body) < _HEAD_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answer

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Encrypt what follows; raises OSError where that fails."""
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionResetError
        self._parser = httptools.HttpResponseParser(self)  # what went before was no response of the other end's
        self._is_reusable = True
        loop = asyncio.get_running_loop()
        # The dot of the DNS's root, which a name may end in, is in no certificate.
        self._transport = await loop.start_tls(self._transport, self, tls, server_hostname=host.rstrip("."))

    def close(self) -> None:
        """Drop the connection, whatever is under way; who waits for a response gets an error."""
        if self._transport is not None:
            self._transport.abort()
        self._parser = None  # it refers back
        self._fail(unreachable())

    # -- what asyncio calls --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        self._transport = self._wire = cast(asyncio.Transport, transport)  # uvloop's have another base
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Read a piece of a response."""
        if self._answer is None or self._parser is None:  # nobody asked
            self.close()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()
            return
        if self._received > _FRAMING * self._size + _HEAD_BYTES:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Take the end of the connection, which may be that of a response."""
        self._is_reusable = False
        self._parser = None  # it refers back
        if self._answer is not None:
            if error is None and self._has_head and self._status >= 200 and not self._is_delimited:
                self._finish()
            else:
                self._fail(unreachable())

    # -- what the parser calls -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a response."""
        self._retry_after: str | None = None
        self._content: list[bytes] = []
        self._size = 0
        self._has_head = self._is_delimited = False
        if self._answer is None:  # one too many
            self.close()

    def on_header(self, name: bytes, text: bytes) -> None:
        """Take a header field, or a trailer."""
        match name.lower():
            case b"content-length" | b"transfer-encoding":
                self._is_delimited = True
            case b"retry-after":
                self._retry_after = text.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the head as whole."""
        if self._parser is None:
            return
        self._status = self._parser.get_status_code()
        self._has_head = True
        if not self._has_body and self._status >= 200:
            self._finish()

    def on_body(self, data: bytes) -> None:
        """Take a piece of a body."""
        self._size += len(data)
        if self._answer is None:  # a body where there is none
            self.close()
        elif self._size > self._limit:
            self._fail(DetectionRejected(Reason.UNREADABLE_ANSWER, "Aim's answer is too large"))
        else:
            self._content.append(data)

    def on_message_complete(self) -> None:
        """Take a response as whole; one that only informs is followed by another."""
        if self._parser is None:
            return
        if self._has_body and (self._status >= 200 or self._status == _SWITCHING):
            self._is_reusable = self._is_reusable and self._parser.should_keep_alive()
            self._finish()

    # -- what comes of it ----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        answer, self._answer = self._answer, None
        self._is_reusable = self._is_reusable and self._has_body
        if answer is not None and not answer.done():
            answer.set_result(Response(self._status, self._retry_after, b"".join(self._content)))
        self._content = []

    def _fail(self, error: DetectionError) -> None:
        self._is_reusable = False
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)
