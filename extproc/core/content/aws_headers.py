"""The headers of a frame of the AWS event stream: names, and values of ten types.

A header that is not read must look inert: it passes with its frame, and Aim does not see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct

from extproc.core.content.shapes import is_binary, looks_inert
from extproc.core.errors import MalformedBody

Value = bool | int | bytes | str
"""The value of a header. A timestamp is its milliseconds since 1970, a UUID its hex digits."""

MESSAGE = ":error-message"
"""The header that is a text."""

_MOST_HEADERS = 256
_LONGEST_STRING = 2**15 - 1
_LONGEST_BYTES = 256

_TRUE, _FALSE, _BYTES, _STRING, _UUID = 0, 1, 6, 7, 9
_INTEGERS = {2: Struct(">b"), 3: Struct(">h"), 4: Struct(">i"), 5: Struct(">q"), 8: Struct(">q")}
_SIZE = Struct(">H")

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}(?: ?; ?charset=[\w-]{1,32})?", re.ASCII).fullmatch


def headers_of(block: bytes) -> Iterator[tuple[str, Value, int]]:
    """Yield name, value and the end of each header; raise MalformedBody for what is broken or may be text."""
    names: set[str] = set()
    position = 0
    try:
        while position < len(block):
            end = position + 1 + block[position]
            name = block[position + 1 : end].decode()
            value, position = _value(block, end)
            if name in names or len(names) == _MOST_HEADERS:
                raise MalformedBody("a frame repeats a header, or has too many")
            if not looks_inert(name) or not (name == MESSAGE or _is_inert(value)):
                raise MalformedBody("a header of a frame may be a text")
            names.add(name)
            yield name, value, position
    except (IndexError, UnicodeDecodeError) as error:
        raise MalformedBody("the headers of a frame are broken") from error


def _value(block: bytes, position: int) -> tuple[Value, int]:
    """Return the value whose type is at `position`, and its end, which may be behind the block."""
    kind = block[position]
    position += 1
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, position
    integer = _INTEGERS.get(kind)
    size = integer.size if integer is not None else 16
    if kind in (_BYTES, _STRING):
        size = block[position] << 8 | block[position + 1]
        position += _SIZE.size
    elif integer is None and kind != _UUID:
        raise MalformedBody("a header of a frame has an unknown type")
    value = block[position : position + size]
    if len(value) < size:
        raise MalformedBody("the headers of a frame are broken")
    if integer is not None:
        number: int = integer.unpack(value)[0]
        return number, position + size
    if kind == _UUID:
        return value.hex(), position + size
    return (value.decode() if kind == _STRING else value), position + size


def _is_inert(value: Value) -> bool:
    if isinstance(value, bytes):
        if is_binary(value):
            return len(value) <= _LONGEST_BYTES  # a signature
        value = value.decode("utf-8", "replace")
    return not isinstance(value, str) or not value or bool(looks_inert(value) or _MEDIA_TYPE(value))


def string_header(name: str, value: str) -> bytes:
    """Return a header with a string, which is cut at the longest that a header may have."""
    data = value.encode("utf-8", "replace")[:_LONGEST_STRING].decode("utf-8", "ignore").encode()
    return bytes((len(name),)) + name.encode() + bytes((_STRING,)) + _SIZE.pack(len(data)) + data


def with_message(block: bytes, message: str) -> bytes:
    """Return headers with another `:error-message`."""
    out = bytearray()
    start = 0
    for name, _, end in headers_of(block):
        out += string_header(name, message) if name == MESSAGE else block[start:end]
        start = end
    return bytes(out)
