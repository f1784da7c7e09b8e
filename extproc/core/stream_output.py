"""What a streamed answer releases to the client: its headers, then its bytes, with pings between them."""

from __future__ import annotations

import re
from enum import StrEnum

from extproc.core.commands import ReleaseBody, ReleaseTrailers
from extproc.core.content.body import DIGESTS, STALE
from extproc.core.content.framing import Framing
from extproc.core.content.server_sent_event import BOM
from extproc.core.context import Context
from extproc.core.vocabulary import RESPONSE

_BLANK_LINE = re.compile(rb"(\r\n|\n|\r(?!\n))(\r\n|\n|\r)\Z")

PING = b": ping\n\n"
"""A comment. Clients skip it, and it resets the idle timeouts of proxies."""


class Head(StrEnum):
    """How much of the stream was released so far."""

    NOTHING = "nothing"
    PINGED = "pinged"
    """the headers and a ping, but nothing of the upstream's body"""
    BEGUN = "begun"


_BEGUN = Head.BEGUN


class StreamOutput:
    """Releases one stream."""

    __slots__ = ("_context", "_framing", "_is_decoded", "head", "tail")

    def __init__(self, context: Context, framing: Framing, *, is_decoded: bool) -> None:
        """Release units of `framing`; without their content-encoding if `is_decoded`."""
        self._context = context
        self._framing = framing
        self._is_decoded = is_decoded
        self.tail = b""
        """The last bytes that were released."""
        self.head = Head.NOTHING

    @property
    def separator(self) -> bytes:
        """The bytes that must precede an event of the sidecar: the line ends that the last event may lack."""
        if self._framing is Framing.JSON_LINES:
            return b"" if not self.tail or self.tail.endswith(b"\n") else b"\n"
        if self._framing is not Framing.EVENT_STREAM:
            return b""
        return b"" if not self.tail or _BLANK_LINE.search(self.tail) else b"\n\n"

    def send(self, data: bytes, *, end_of_stream: bool = False) -> None:
        """Release bytes of the stream, after the headers."""
        if self.head is not _BEGUN:
            data = self._begin(data)
        if data or end_of_stream:
            self._release(data, end_of_stream=end_of_stream)

    def _begin(self, data: bytes) -> bytes:
        """Release the headers unless a ping has; return the first bytes of the stream as the client gets them."""
        if self.head is Head.NOTHING:
            self._release_headers()
        else:
            data = data.removeprefix(BOM)  # after a ping, a BOM would be part of a field's name
        self.head = _BEGUN
        return data

    def ping(self) -> None:
        """Release a ping, after the headers."""
        if self.head is Head.NOTHING:
            self._release_headers()
            self.head = Head.PINGED
        self._release(PING)

    def close(self, data: bytes, *, has_trailers: bool) -> None:
        """Release the last bytes and the end."""
        self.send(data, end_of_stream=not has_trailers)
        if has_trailers:
            self._context.release_response(ReleaseTrailers(RESPONSE))

    def _release_headers(self) -> None:
        # The stream is released decoded: only whole events can be released, and they are decoded to be read. Later
        # events may be rewritten, so no digest is valid.
        self._context.release_headers(STALE if self._is_decoded else DIGESTS)

    def _release(self, data: bytes, *, end_of_stream: bool = False) -> None:
        self.tail = (self.tail + data[-4:])[-4:]
        self._context.release_response(ReleaseBody(RESPONSE, data, end_of_stream))
