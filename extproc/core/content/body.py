"""Bodies: bounded buffers, and content-encodings undone piece by piece in bounded memory (RFC 9110, 8.4)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli
import zstandard

from extproc.core.errors import BodyTooLarge, MalformedBody, UnsupportedEncoding
from extproc.core.vocabulary import Headers

_STEP = 65_536
"""Largest piece, in bytes, that one step of a decompressor may produce (zstd: see there)."""

_ZLIB_SLICE = 1024
"""Input bytes per zlib step: what is left behind a member's end is copied, and members can be many and small."""

_ZSTD_SLICE = 256
"""Input bytes per zstd step: zstandard cannot bound a step's output, and 4 bytes of input may stand for 128 KiB."""

_ZSTD_WINDOW = 8 * 1024 * 1024
"""RFC 8878 asks decoders to support 8 MiB windows and advises encoders not to need more."""

_SMALL = 65_536
"""Inflated bytes below which the ratio does not matter: short bodies may compress very well."""


DIGESTS = ("content-md5", "digest", "content-digest", "repr-digest", "etag")
"""Headers that are no longer true of a body that was rewritten."""

STALE = ("content-encoding", *DIGESTS)
"""Those that are not of one that was decoded and rewritten."""


class BodyBuffer:
    """Bytes held until a body is whole."""

    __slots__ = ("_limit", "_pieces", "size")

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes."""
        self._limit = limit
        self._pieces: list[bytes] = []
        self.size = 0

    def add(self, data: bytes) -> None:
        """Append `data`; it is kept even when BodyTooLarge is raised, so that nothing is lost when policy opens."""
        self._pieces.append(data)
        self.size += len(data)
        if self.size > self._limit:
            raise BodyTooLarge("a body is larger than the limit")

    def take(self) -> bytes:
        """Return all bytes and forget them."""
        whole = self.peek()
        self._pieces = []
        self.size = 0
        return whole

    def peek(self) -> bytes:
        """Return all bytes."""
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""


def declared_length(content_length: str) -> int:
    """Return what a content-length says, -1 where it says nothing; one too long to be true is very large."""
    if not content_length.isascii() or not content_length.isdecimal():
        return -1
    return int(content_length) if len(content_length) < 20 else 2**63


class _Decompressor(Protocol):
    def inflate(self, data: bytes) -> Iterator[bytes]: ...

    def complete(self) -> bool: ...


class _Zlib:
    """gzip (several members too) and deflate (with zlib's header or, as some servers send it, without)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._head = b""
        self._object = zlib.decompressobj(16 + zlib.MAX_WBITS) if gzip else None

    def inflate(self, data: bytes) -> Iterator[bytes]:
        if self._object is None:
            self._head += data
            if len(self._head) < 2:
                return
            data = self._head
            # RFC 1950: method 8 in the low bits, and the two bytes as a number divisible by 31.
            has_header = data[0] & 0x0F == 8 and (data[0] * 256 + data[1]) % 31 == 0
            self._object = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        for start in range(0, len(data), _ZLIB_SLICE):
            piece = data[start : start + _ZLIB_SLICE]
            while piece:
                if self._object.eof:
                    if not self._gzip:
                        raise MalformedBody("bytes behind the end of a compressed body")
                    self._object = zlib.decompressobj(16 + zlib.MAX_WBITS)
                yield self._object.decompress(piece, _STEP)
                piece = self._object.unused_data if self._object.eof else self._object.unconsumed_tail
        while self._object is not None and not self._object.eof and (rest := self._object.decompress(b"", _STEP)):
            yield rest  # what the last step's bound left inside

    def complete(self) -> bool:
        return self._object is not None and self._object.eof


class _Brotli:
    def __init__(self) -> None:
        self._object = brotli.Decompressor()

    def inflate(self, data: bytes) -> Iterator[bytes]:
        if not data:
            return
        if self._object.is_finished():
            raise MalformedBody("bytes behind the end of a compressed body")
        yield self._object.process(data, output_buffer_limit=_STEP)
        while not self._object.is_finished() and (piece := self._object.process(b"", output_buffer_limit=_STEP)):
            yield piece  # what the last step's bound left inside

    def complete(self) -> bool:
        return bool(self._object.is_finished())


class _Zstd:
    """zstd, of one frame or several (RFC 8878, 3.1)."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._object = self._decompressor.decompressobj()

    def inflate(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE):
            piece = data[start : start + _ZSTD_SLICE]
            while piece:
                if self._object.eof:
                    self._object = self._decompressor.decompressobj()
                yield self._object.decompress(piece)
                piece = self._object.unused_data if self._object.eof else b""

    def complete(self) -> bool:
        return bool(self._object.eof)


class Inflater:
    """Undoes one content-encoding."""

    __slots__ = ("_decompressor", "_limit", "_ratio", "_read", "_written")

    def __init__(self, decompressor: _Decompressor, limit: int | None, ratio: int) -> None:
        """Refuse more than `limit` inflated bytes in all (None: any), or more than `ratio` for each byte in."""
        self._decompressor = decompressor
        self._limit = limit
        self._ratio = ratio
        self._read = 0
        self._written = 0

    def feed(self, data: bytes) -> bytes:
        """Return what `data` inflates to.

        Raises BodyTooLarge beyond the limits and MalformedBody for what is not in the encoding.
        """
        self._read += len(data)
        allowed = max(_SMALL, self._read * self._ratio)
        pieces: list[bytes] = []
        try:
            for piece in self._decompressor.inflate(data):
                self._written += len(piece)
                if self._written > allowed or (self._limit is not None and self._written > self._limit):
                    raise BodyTooLarge("a compressed body inflates beyond the limit")
                pieces.append(piece)
        except (zlib.error, brotli.error, zstandard.ZstdError) as error:
            raise MalformedBody("a compressed body is broken") from error
        return b"".join(pieces)

    def finish(self) -> None:
        """Check that the body came to its end; raises MalformedBody."""
        if self._read and not self._decompressor.complete():
            raise MalformedBody("a compressed body is cut short")


def inflater(headers: Headers, limit: int | None, ratio: int) -> Inflater | None:
    """Return what undoes the content-encoding that `headers` name, None for none.

    Raises UnsupportedEncoding for one that is unknown, or for several on top of each other.
    """
    named = ",".join(value for name, value in headers if name == "content-encoding")
    codings = [coding for part in named.split(",") if (coding := part.strip().lower()) not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1:
        raise UnsupportedEncoding("stacked content-encodings")
    match codings[0]:
        case "gzip" | "x-gzip":
            return Inflater(_Zlib(gzip=True), limit, ratio)
        case "deflate":
            return Inflater(_Zlib(gzip=False), limit, ratio)
        case "br":
            return Inflater(_Brotli(), limit, ratio)
        case "zstd":
            return Inflater(_Zstd(), limit, ratio)
        case _:
            raise UnsupportedEncoding("an unknown content-encoding")


def inflate(data: bytes, headers: Headers, limit: int, ratio: int) -> bytes:
    """Return a whole body without its content-encoding; raises ContentError."""
    undo = inflater(headers, limit, ratio)
    if undo is None:
        return data
    plain = undo.feed(data)
    undo.finish()
    return plain
