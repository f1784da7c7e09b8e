"""The AWS event stream (`application/vnd.amazon.eventstream`), cut into frames without losing a byte.

Implements the encoding of the Amazon Event Stream Specification (smithy.io, "Amazon Event Stream"). A frame is two
lengths, their CRC32, headers, a payload, and a CRC32 of everything before. All integers are big-endian. Both CRCs are
checked, and made anew for a frame with other data. The headers stay byte for byte.

The data of a frame is found like this:
- A payload is text: a JSON document, or any other text in UTF-8. A payload that is not UTF-8 is an error, because the
  encoding does not say whether it is media or a piece of a text.
- In a payload `{"bytes": <base64>}`, as Bedrock's InvokeModelWithResponseStream sends it, the decoded text is the data.
  Padding (`p`) may stand beside it. With other fields beside it, the data is the payload with the decoded text, or the
  JSON that it is, in the place of the base64.
- A frame of type `error` has no payload. Its data is the header `:error-message`.
- A `PayloadPart` is read by `payload_parts`, because it is a piece of another stream.
- Other headers are not inspected, so they must look inert.

    decoder = FrameDecoder(limit)
    for frame in decoder.feed(data): ...    # any split of the bytes gives the same frames
    for frame in decoder.finish(): ...
    # the frames' raw bytes, joined, equal the input
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import crc32
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from struct import Struct
from typing import Any

from extproc.core.content.aws_headers import MESSAGE, Value, headers_of, string_header, with_message
from extproc.core.content.document import Document, Edit, Path, Raw
from extproc.core.content.media_type import is_json
from extproc.core.content.shapes import looks_inert
from extproc.core.errors import BodyTooLarge, ContentError, MalformedBody

_LENGTHS = Struct(">II")
_CRC = Struct(">I")
_PRELUDE = _LENGTHS.size + _CRC.size
_OVERHEAD = _PRELUDE + _CRC.size

_HEADERS_BYTES = 128 * 1024
"""The most bytes of headers that the specification allows."""


PAYLOAD_PART = "PayloadPart"
"""The type of the events of Amazon SageMaker."""


class Place(Enum):
    """Where the data of a frame is."""

    PAYLOAD = auto()
    BYTES = auto()  # in the field `bytes`, in base64
    BESIDE = auto()  # the same, with other fields beside it
    HEADER = auto()  # in the header `:error-message`


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `raw` are its bytes; `data` is its text, None if it has none.

    `is_foreign` marks data that may be any text instead of JSON.
    """

    raw: bytes
    headers: Mapping[str, Value]
    data: str | None = None
    is_foreign: bool = False
    place: Place = Place.PAYLOAD

    @property
    def message_type(self) -> str:
        """The kind of the message: `event`, `exception` or `error`; empty without the header."""
        return self._header(":message-type")

    @property
    def event_type(self) -> str:
        """The name of the event; empty without the header."""
        return self._header(":event-type")

    def _header(self, name: str) -> str:
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""

    @property
    def header_block(self) -> bytes:
        """The headers as they came."""
        return self.raw[_PRELUDE : _PRELUDE + self._headers_size]

    @property
    def payload(self) -> bytes:
        """The payload as it came."""
        return self.raw[_PRELUDE + self._headers_size : -_CRC.size]

    @property
    def _headers_size(self) -> int:
        size: int = _LENGTHS.unpack_from(self.raw)[1]
        return size

    def with_data(self, data: str) -> bytes:
        """Return the frame's bytes with other data, and with new lengths and CRCs."""
        headers = self.header_block
        if self.place is Place.HEADER:
            return frame_of(with_message(headers, data), self.payload)
        if self.place is Place.BYTES:
            data = Document(self.payload.decode()).rewrite({("bytes",): _base64(data)})
        elif self.place is Place.BESIDE:
            document = Document(data)
            inner = document.root["bytes"]
            text = inner if isinstance(inner, str) else document.spelling([("bytes",)])["bytes",]
            data = document.rewrite({("bytes",): _base64(text)})
        return frame_of(headers, data.encode())


def exception_frame(kind: str, payload: bytes) -> bytes:
    """Return a frame that ends a stream with an exception of this type. `payload` is JSON with a `message`."""
    return frame_of(
        string_header(":exception-type", kind)
        + string_header(":content-type", "application/json")
        + string_header(":message-type", "exception"),
        payload,
    )


class FrameDecoder:
    """Cuts an AWS event stream into frames."""

    __slots__ = ("_buffer", "_limit", "_size")

    def __init__(self, limit: int) -> None:
        """Allow frames of at most `limit` bytes."""
        self._limit = limit
        self._buffer = bytearray()
        self._size = 0  # of the incomplete frame; 0 if it is not known yet

    @property
    def pending(self) -> int:
        """The number of bytes of the incomplete frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes.

        Raises BodyTooLarge for a frame over the limit, as soon as its length is known, and MalformedBody for a frame
        that is broken or holds no text. `take_rest` then returns the bytes that were not yielded.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _PRELUDE:
            if not self._size:
                self._size = self._read_prelude()
            if len(buffer) < self._size:
                return
            frame = _read(bytes(buffer[: self._size]))
            del buffer[: self._size]
            self._size = 0
            yield frame

    def finish(self) -> Iterator[Frame]:
        """Yield nothing; raise MalformedBody if the stream ends within a frame."""
        if self._buffer:
            raise MalformedBody("a frame is cut short")
        yield from ()

    def take_rest(self) -> bytes:
        """Remove and return the bytes of the incomplete frame."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._size = 0
        return rest

    def _read_prelude(self) -> int:
        """Return the length of the frame that the buffer begins with."""
        size, headers = _LENGTHS.unpack_from(self._buffer)
        if crc32(self._buffer[: _LENGTHS.size]) != _CRC.unpack_from(self._buffer, _LENGTHS.size)[0]:
            raise MalformedBody("the lengths of a frame have another CRC")
        if headers > _HEADERS_BYTES or size < headers + _OVERHEAD:
            raise MalformedBody("the lengths of a frame do not fit")
        if size > self._limit:
            raise BodyTooLarge("a frame is larger than the limit")
        return int(size)


def _read(raw: bytes) -> Frame:
    """Read a frame whose prelude was checked."""
    if crc32(raw[: -_CRC.size]) != _CRC.unpack_from(raw, len(raw) - _CRC.size)[0]:
        raise MalformedBody("a frame has another CRC")
    end = _PRELUDE + _LENGTHS.unpack_from(raw)[1]
    headers = {name: value for name, value, _ in headers_of(raw[_PRELUDE:end])}
    if headers.get(":event-type") == PAYLOAD_PART:
        return Frame(raw, headers)
    return with_text(Frame(raw, headers))


def with_text(frame: Frame) -> Frame:
    """Return a frame with its text; raise MalformedBody if it has none that can be read."""
    raw, headers = frame.raw, frame.headers
    message = headers.get(MESSAGE, "")
    try:
        text = frame.payload.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody("a frame is not UTF-8") from error
    if not isinstance(message, str) or (message and text):
        raise MalformedBody("a frame has a message beside its payload")
    if message:
        return Frame(raw, headers, message, is_foreign=True, place=Place.HEADER)
    if not text:
        return Frame(raw, headers)
    if '"bytes"' in text or "\\u00" in text:  # the key may be spelled with escapes
        return _unwrapped(Frame(raw, headers, text, not _is_json(headers)))
    return Frame(raw, headers, text, not _is_json(headers))


def _is_json(headers: Mapping[str, Value]) -> bool:
    kind = headers.get(":content-type")
    return isinstance(kind, str) and is_json(kind.split(";", 1)[0].strip().lower())


def _unwrapped(frame: Frame) -> Frame:
    """Return the frame with the text that its payload has in base64, if it has one."""
    try:
        payload = Document(frame.data or "")
    except MalformedBody:
        return frame  # any other text, or one that the dialect cannot read
    root: Any = payload.root
    encoded = root.get("bytes") if type(root) is dict else None
    if not isinstance(encoded, str):
        return frame
    try:
        text = b64decode(encoded, validate=True).decode()
    except ValueError as error:
        raise MalformedBody("the bytes of a frame hold no text") from error
    others = root.keys() - {"bytes"}
    padding = root.get("p", "")
    if not others or (others == {"p"} and isinstance(padding, str) and (not padding or looks_inert(padding))):
        return Frame(frame.raw, frame.headers, text, is_foreign=True, place=Place.BYTES)
    edits: dict[Path, Edit] = {("bytes",): Raw(text) if _is_document(text) else text}
    return Frame(frame.raw, frame.headers, payload.rewrite(edits), is_foreign=True, place=Place.BESIDE)


def _is_document(text: str) -> bool:
    try:
        return type(Document(text).root) is not str and not text.startswith("\ufeff")
    except ContentError:
        return False


def _base64(text: str) -> str:
    return b64encode(text.encode("utf-8", "replace")).decode()


def frame_of(headers: bytes, payload: bytes) -> bytes:
    """Return a frame with new lengths and CRCs."""
    lengths = _LENGTHS.pack(_OVERHEAD + len(headers) + len(payload), len(headers))
    whole = lengths + _CRC.pack(crc32(lengths)) + headers + payload
    return whole + _CRC.pack(crc32(whole))
