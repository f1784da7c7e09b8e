"""Bodies: bounded buffers, and content-encodings decoded piece by piece in bounded memory (RFC 9110, 8.4)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli
import zstandard

from extproc.core.errors import BodyTooLarge, MalformedBody, UnsupportedEncoding
from extproc.core.vocabulary import Headers

_STEP = 65_536
"""The largest piece, in bytes, that one step of a decompressor may produce (except zstd, see below)."""

_ZLIB_SLICE = 1024
"""Input bytes per zlib step. The bytes after a member's end are copied, and there can be many small members."""

_ZSTD_SLICE = 256
"""Input bytes per zstd step. zstandard cannot bound a step's output, and 4 bytes can inflate to 128 KiB."""

_ZSTD_HEAD = 18
"""The largest header of a zstd frame, with its magic number, in bytes."""

_ZSTD_WINDOW = 8 * 1024 * 1024
"""RFC 8878 asks decoders to support 8 MiB windows and advises encoders not to need more."""

_SMALL = 65_536
"""The number of inflated bytes up to which the ratio is not checked: short bodies may compress very well."""


DIGESTS = ("content-md5", "digest", "content-digest", "repr-digest", "etag")
"""Headers that a rewritten body makes wrong."""

STALE = ("content-encoding", *DIGESTS)
"""Headers that a decoded and rewritten body makes wrong."""


class BodyBuffer:
    """Holds the bytes of a body until it is whole."""

    __slots__ = ("_limit", "_pieces", "size")

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes."""
        self._limit = limit
        self._pieces: list[bytes] = []
        self.size = 0

    def add(self, data: bytes) -> None:
        """Append `data`. It is kept even if BodyTooLarge is raised, so that a leg that fails open is complete."""
        self._pieces.append(data)
        self.size += len(data)
        if self.size > self._limit:
            raise BodyTooLarge("a body is larger than the limit")

    def take(self) -> bytes:
        """Remove and return all bytes."""
        whole = self.peek()
        self._pieces = []
        self.size = 0
        return whole

    def peek(self) -> bytes:
        """Return all bytes and keep them."""
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""


def declared_length(content_length: str) -> int:
    """Return the value of a content-length header, or -1 if it is not a number. Values over 19 digits become 2**63."""
    if not content_length.isascii() or not content_length.isdecimal():
        return -1
    return int(content_length) if len(content_length) < 20 else 2**63


class _Decompressor(Protocol):
    def inflate(self, data: bytes) -> Iterator[bytes]: ...

    def complete(self) -> bool: ...


class _Zlib:
    """Decodes gzip, also of several members, and deflate, also without zlib's header, which some servers omit."""

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
                        raise MalformedBody("bytes after the end of a compressed body")
                    self._object = zlib.decompressobj(16 + zlib.MAX_WBITS)
                yield self._object.decompress(piece, _STEP)
                piece = self._object.unused_data if self._object.eof else self._object.unconsumed_tail
        while self._object is not None and not self._object.eof and (rest := self._object.decompress(b"", _STEP)):
            yield rest  # output that the bound of the last step kept back

    def complete(self) -> bool:
        return self._object is not None and self._object.eof


class _Brotli:
    def __init__(self) -> None:
        self._object = brotli.Decompressor()

    def inflate(self, data: bytes) -> Iterator[bytes]:
        if not data:
            return
        if self._object.is_finished():
            raise MalformedBody("bytes after the end of a compressed body")
        yield self._object.process(data, output_buffer_limit=_STEP)
        while not self._object.is_finished() and (piece := self._object.process(b"", output_buffer_limit=_STEP)):
            yield piece  # output that the bound of the last step kept back

    def complete(self) -> bool:
        return bool(self._object.is_finished())


class _Zstd:
    """Decodes zstd, also of several frames (RFC 8878, 3.1)."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._begin_frame()

    def _begin_frame(self) -> None:
        self._object = self._decompressor.decompressobj()
        self._head = b""
        self._written = 0

    def inflate(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE):
            piece = data[start : start + _ZSTD_SLICE]
            while piece:
                if self._object.eof:
                    self._begin_frame()
                self._head = (self._head + piece)[:_ZSTD_HEAD] if len(self._head) < _ZSTD_HEAD else self._head
                plain = self._object.decompress(piece)
                self._written += len(plain)
                if self._object.eof:
                    self._check_size()
                yield plain
                piece = self._object.unused_data if self._object.eof else b""

    def _check_size(self) -> None:
        """Compare the frame's size with the declared one, which zstandard does only for frames that it gets whole."""
        declared = zstandard.frame_content_size(self._head)
        if declared not in (-1, self._written):
            raise MalformedBody("a compressed body has another size than it declares")

    def complete(self) -> bool:
        return bool(self._object.eof)


class Inflater:
    """Decodes one content-encoding."""

    __slots__ = ("_decompressor", "_limit", "_ratio", "_read", "_written")

    def __init__(self, decompressor: _Decompressor, limit: int | None, ratio: int) -> None:
        """Allow at most `limit` inflated bytes in all (None: no limit), and at most `ratio` for each input byte."""
        self._decompressor = decompressor
        self._limit = limit
        self._ratio = ratio
        self._read = 0
        self._written = 0

    def feed(self, data: bytes) -> bytes:
        """Return the decoded form of `data`, as far as it is known; raise like `slices`."""
        return b"".join(self.slices(data))

    def slices(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded form of `data`, as far as it is known, in pieces: all must be taken before more is decoded.

        Raises BodyTooLarge beyond the limits and MalformedBody for data that is not in the encoding.
        """
        self._read += len(data)
        allowed = max(_SMALL, self._read * self._ratio)
        try:
            for piece in self._decompressor.inflate(data):
                self._written += len(piece)
                if self._written > allowed or (self._limit is not None and self._written > self._limit):
                    raise BodyTooLarge("a compressed body inflates beyond the limit")
                yield piece
        except (zlib.error, brotli.error, zstandard.ZstdError) as error:
            raise MalformedBody("a compressed body is broken") from error

    def finish(self) -> None:
        """Check that the body is complete; raises MalformedBody."""
        if self._read and not self._decompressor.complete():
            raise MalformedBody("a compressed body is cut short")


def _codings(headers: Headers) -> list[str]:
    named = [value for name, value in headers if name == "content-encoding"]
    if not named:
        return named
    return [coding for part in ",".join(named).split(",") if (coding := part.strip().lower()) not in ("", "identity")]


def most_inflated(size: int, headers: Headers, limit: int, ratio: int) -> int:
    """Return how many bytes a body of `size` bytes has at most without its content-encoding, within the limits."""
    return min(size * ratio, max(size, limit)) if _codings(headers) else size


def inflater(headers: Headers, limit: int | None, ratio: int) -> Inflater | None:
    """Return a decoder for the content-encoding in `headers`, or None if there is none.

    Raises UnsupportedEncoding for an unknown encoding and for several stacked ones.
    """
    codings = _codings(headers)
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
    """Return a whole body without its content-encoding; raises ContentError if it cannot be decoded."""
    undo = inflater(headers, limit, ratio)
    if undo is None:
        return data
    plain = undo.feed(data)
    undo.finish()
    return plain
