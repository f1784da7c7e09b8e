"""Frames of an AWS event stream, written by the specification alone, without the code under test."""

from __future__ import annotations

import json
from base64 import b64encode
from binascii import crc32


def header(name: str, kind: int, value: bytes) -> bytes:
    """Return a header with a value of this type."""
    return bytes([len(name)]) + name.encode() + bytes([kind]) + value


def string(name: str, value: str) -> bytes:
    return header(name, 7, len(value.encode()).to_bytes(2, "big") + value.encode())


def frame(payload: bytes = b"", *headers: bytes) -> bytes:
    block = b"".join(headers)
    lengths = (16 + len(block) + len(payload)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
    whole = lengths + crc32(lengths).to_bytes(4, "big") + block + payload
    return whole + crc32(whole).to_bytes(4, "big")


def event(name: str, payload: object, *more: bytes) -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    named = (string(":event-type", name), string(":content-type", "application/json"), string(":message-type", "event"))
    return frame(data, *named, *more)


def wrapped(inner: str, **others: object) -> bytes:
    return event("chunk", {"bytes": b64encode(inner.encode()).decode(), **others})
