"""Forms (`multipart/form-data`, RFC 7578), cut into parts without losing a byte.

Servers differ in what they accept, so only one reading is accepted here, and everything else is unreadable:
- The delimiter is `--` and the boundary. It stands at the begin of a line that ends in CRLF, and nowhere else in the
  body. Nothing precedes the first part, and nothing but line ends follows the last.
- Each part has one `content-disposition: form-data` with a name that all servers read alike. No header is repeated or
  goes on in another line, and headers that are not read look inert.
- A part is not encoded: of `content-transfer-encoding`, which RFC 7578 deprecates and most servers ignore, only the
  values pass that mean no encoding. A multipart body in a part is not read.
- A text is UTF-8. It may be called Latin-1 (by a part's type, the form's type, or `_charset_`), because some clients
  call all texts so; read as Latin-1, UTF-8 has the same words of ASCII. Any other charset is unreadable.

The data of a part is its text. A file of a type that is no text, and that begins like binary data, is media: it has no
data and stays as it is. A part without the name of a file is a text, whatever its type, because servers read it so;
some do not know `filename*`.

    decoder = FormDecoder(boundary, limit)
    for part in decoder.feed(data): ...    # any split of the bytes gives the same parts
    for part in decoder.finish(): ...
    # the parts' raw bytes, joined, equal the input
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from extproc.core.content.framing import FIRST_BYTES, Framing
from extproc.core.content.media_type import is_json, is_json_lines
from extproc.core.content.part_headers import check_charset, check_inert, disposition_of, headers_of, parsed
from extproc.core.content.shapes import is_binary
from extproc.core.errors import BodyTooLarge, MalformedBody

MOST_PARTS = 1024
"""The most parts of one form."""

HEADER_BYTES = 16_384
"""The most bytes of the headers of one part, with its delimiter."""

_CRLF = b"\r\n"
_BLANK = b"\r\n\r\n"

_NOT_ENCODED = frozenset({"7bit", "8bit", "binary"})
_NESTED = ("multipart/", "message/")
_LENGTHS = frozenset({"content-length", "content-md5", "digest", "content-digest", "repr-digest"})
"""Headers of a part that other data would make wrong."""


@dataclass(frozen=True, slots=True)
class FormPart:
    """One part with the delimiter before it; or the end of the form.

    `raw` are its unchanged bytes; its content begins at `start` and ends with them. `data` is its text, None for media
    and for the end. `framing` says how the text is cut into documents; it is UNKNOWN for a text that is no JSON.
    `name` is the name of the field. `filename` has each reading of the name of a file, one a line; None: it is no file.
    """

    raw: bytes
    data: str | None = None
    name: str = ""
    filename: str | None = None
    framing: Framing = Framing.UNKNOWN
    start: int = 0
    delimiter: bytes = b""
    fixed: bool = False
    is_foreign: ClassVar[bool] = False

    def with_data(self, data: str) -> bytes:
        """Return the part's bytes with another text.

        Raises MalformedBody if the part's headers or the form's boundary do not allow that text.
        """
        content = data.encode()
        if self.fixed or self.delimiter in content:
            raise MalformedBody("a part cannot have that text")
        return self.raw[: self.start] + content


class FormDecoder:
    """Cuts a form into parts."""

    __slots__ = ("_buffer", "_count", "_delimiter", "_has_begun", "_has_ended", "_limit", "_scanned")

    def __init__(self, boundary: str, limit: int) -> None:
        """Allow parts of at most `limit` bytes."""
        self._delimiter = b"--" + boundary.encode()
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0  # the buffer has no delimiter that ends its part before this position
        self._has_begun = False  # the buffer begins with a delimiter that was checked
        self._has_ended = False
        self._count = 0

    @property
    def pending(self) -> int:
        """The number of bytes of the incomplete part."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[FormPart]:
        """Yield the parts that `data` completes.

        Raises BodyTooLarge for a part over the limit, for too long headers and for too many parts, and MalformedBody
        for what is unreadable. `take_rest` then returns the bytes that were not yielded.
        """
        buffer = self._buffer
        buffer += data
        while buffer and not self._has_ended:
            if not self._has_begun and not self._begin():
                break
            if self._has_ended:
                yield self._end(self._scanned)
                break
            found = buffer.find(self._delimiter, self._scanned)
            if found < 0:
                self._scanned = max(self._scanned, len(buffer) - len(self._delimiter) + 1)
                self._check_headers(len(buffer))
                break
            if not buffer.startswith(_CRLF, found - 2):
                raise MalformedBody("a boundary stands within a part")
            self._check_headers(found)
            part = self._part(self._bytes(found - 2))
            self._drop(found - 2)
            self._has_begun = False
            yield part
        if self._has_ended and buffer:
            if buffer.strip(_CRLF):
                raise MalformedBody("a form goes on after its end")
            yield self._end(len(buffer))
        if len(buffer) > self._limit:
            raise BodyTooLarge("a part is larger than the limit")

    def finish(self) -> Iterator[FormPart]:
        """Yield nothing; raise MalformedBody if the body ends before the form does."""
        if not self._has_ended:
            raise MalformedBody("a form is cut short")
        yield from ()

    def take_rest(self) -> bytes:
        """Remove and return the bytes of the incomplete part."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return rest

    def _begin(self) -> bool:
        """Check the delimiter that the buffer begins with; return False if more bytes are needed."""
        buffer = self._buffer
        start = 0 if not self._count and not buffer.startswith(b"\r") else 2
        end = start + len(self._delimiter)
        whole = _CRLF[:start] + self._delimiter
        if bytes(buffer[:end]) != whole[: len(buffer)]:
            raise MalformedBody("a form does not begin with its boundary")
        after = bytes(buffer[end : end + 2])
        if len(after) < 2:
            return False
        if after not in (_CRLF, b"--"):
            raise MalformedBody("a boundary is not at the end of its line")
        self._has_ended = after == b"--"
        self._has_begun = True
        self._scanned = end + 2
        self._count += 1
        if self._count > MOST_PARTS + 1:
            raise BodyTooLarge("a form has too many parts")
        return True

    def _check_headers(self, end: int) -> None:
        """Check that the headers of the current part, whose known bytes end at `end`, are not too long."""
        if end > HEADER_BYTES and self._buffer.find(_BLANK, 0, HEADER_BYTES) < 0:
            raise BodyTooLarge("a part has too long headers")

    def _end(self, end: int) -> FormPart:
        """Remove the bytes before `end`; return them as a unit without data."""
        unit = FormPart(self._bytes(end))
        self._drop(end)
        return unit

    def _bytes(self, end: int) -> bytes:
        """Return the bytes before `end`, which may be a large file, with one copy."""
        if end > self._limit:
            raise BodyTooLarge("a part is larger than the limit")
        with memoryview(self._buffer) as view:
            return bytes(view[:end])

    def _drop(self, end: int) -> None:
        del self._buffer[:end]
        self._scanned = 0

    def _part(self, raw: bytes) -> FormPart:
        """Read a whole part."""
        start = raw.find(_BLANK)
        if start < 0:
            raise MalformedBody("a part has no end of its headers")
        first = raw.index(self._delimiter) + len(self._delimiter) + len(_CRLF)
        headers = headers_of(raw[first : max(first, start)])
        start += len(_BLANK)
        name, filename, is_file = disposition_of(headers.get("content-disposition", ""))
        kind, parameters = parsed(headers.get("content-type", ""))
        check_inert((kind or "-", *parameters.values()))
        if kind.startswith(_NESTED):
            raise MalformedBody("a part has parts of its own")
        if headers.get("content-transfer-encoding", "binary").lower() not in _NOT_ENCODED:
            raise MalformedBody("a part is encoded")
        framing = _framing(kind, filename)
        may_be_media = is_file and framing is Framing.UNKNOWN and not kind.startswith("text/")
        if may_be_media and is_binary(raw[start : start + FIRST_BYTES]):
            return FormPart(raw, None, name, filename, framing, start)
        try:
            data = raw[start:].decode()
        except UnicodeDecodeError as error:
            raise MalformedBody("a part is not UTF-8") from error
        if "\0" in data:
            raise MalformedBody("a part has NUL, so it may be UTF-16")
        check_charset(data if name == "_charset_" else parameters.get("charset", ""))
        fixed = name == "_charset_" or not _LENGTHS.isdisjoint(headers)
        return FormPart(raw, data, name, filename, framing, start, self._delimiter, fixed)


def _framing(kind: str, filename: str | None) -> Framing:
    """Return how a part's text is cut into documents; UNKNOWN if it is no JSON."""
    names = (filename or "").lower().split("\n")
    if is_json_lines(kind) or any(name.endswith((".jsonl", ".ndjson")) for name in names):
        return Framing.JSON_LINES
    is_whole = is_json(kind) or any(name.endswith(".json") for name in names)
    return Framing.WHOLE if is_whole else Framing.UNKNOWN
