"""The first bytes of a body, which tell what it is where its media type does not."""

from __future__ import annotations

from extproc.core.content.body import inflater
from extproc.core.content.framing import FIRST_BYTES
from extproc.core.content.server_sent_event import BOM
from extproc.core.errors import ContentError
from extproc.core.vocabulary import Headers

_SLICE = 256
"""The bytes that are inflated in one step, so that a long piece is not inflated for its beginning alone."""

_MOST_READ = 65_536
"""The encoded bytes within which a body must begin: the header of a gzip body can be long."""


class Beginning:
    """Collects the first bytes of a body, without its content-encoding."""

    __slots__ = ("_inflater", "_read", "first")

    def __init__(self, headers: Headers, ratio: int) -> None:
        """Read a body with these headers."""
        self._read = 0
        self.first = b""
        try:
            self._inflater = inflater(headers, None, ratio)
        except ContentError:
            self._inflater = None
            self._read = _MOST_READ

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body. What cannot be decoded has no first bytes."""
        for start in range(0, len(data), _SLICE):
            if self.is_enough:
                return
            piece = data[start : start + _SLICE]
            self._read += len(piece)
            try:
                plain = piece if self._inflater is None else self._inflater.feed(piece)
            except ContentError:
                self._read = _MOST_READ
                return
            self.first = (self.first + plain)[:FIRST_BYTES]

    @property
    def is_enough(self) -> bool:
        """Return whether more bytes would tell nothing more."""
        return len(self.first) >= FIRST_BYTES or self._read >= _MOST_READ


def is_blank(first: bytes) -> bool:
    """Return whether a body has only begun with white space."""
    return not first.removeprefix(BOM).strip(b" \t\r\n")


def begins_like_json(first: bytes) -> bool:
    """Return whether a body that begins so may be JSON with a text in it."""
    return is_blank(first) or first.removeprefix(BOM).lstrip(b" \t\r\n")[:1] in (b"{", b"[", b'"')
