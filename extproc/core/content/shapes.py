"""The shapes of strings that hold no text: identifiers, opaque values, URLs and media.

A place that is known to hold such a value is trusted only as far as the value looks like one. A sentence at the place
of an identifier is a text.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from dataclasses import dataclass

looks_inert = re.compile(r"@?[A-Za-z0-9._:/+=%-]{1,256}").fullmatch
"""Match an identifier, a name of a model or type, an enum, a number or a time. An e-mail address is none."""

_MAX_URL = 8192

_URL = re.compile(r"(?:https?|gs|s3)://\S+", re.IGNORECASE).fullmatch

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}").fullmatch

_WRAPPED = re.compile(r"(?:[A-Za-z0-9+/]{60,76}\r?\n)+[A-Za-z0-9+/]{0,76}={0,2}(?:\r?\n)?").fullmatch
"""Base64 in lines, as MIME (RFC 2045, 6.8) and PEM (RFC 1421) write it."""

_DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*?)(;base64)?,", re.IGNORECASE).match

_TEXT_TYPE = re.compile(r"text/|application/(?:.*\+)?(?:json|xml|yaml|x-ndjson|jsonl)$|image/svg", re.IGNORECASE).match

_HEAD = 64
"""The number of bytes by which media are recognised."""

_SHORT = 64
"""A shorter value in base64 counts as media only with a known signature: a password can be valid base64, too."""

_SIGNATURES = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"%PDF-",
    b"PK\x03\x04",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"\x1f\x8b",
    b"\x1aE\xdf\xa3",
    b"\x00\x00\x00",
    b"\x00asm",
)
"""The first bytes of common formats of images, audio, video, archives and documents."""

_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]").search


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text in base64. `prefix` is the part of a data URL before it."""

    text: str
    prefix: str = ""
    is_urlsafe: bool = False

    def encode(self, text: str) -> str:
        """Return another text in the same encoding."""
        encode = urlsafe_b64encode if self.is_urlsafe else b64encode
        return self.prefix + encode(text.encode("utf-8", "surrogatepass")).decode()


def looks_opaque(value: str) -> bool:
    """Return whether `value` looks like a signature, a cursor or encrypted content: base64 of any length."""
    return looks_inert(value) is not None or _BASE64(value) is not None or _WRAPPED(value) is not None


def looks_like_url(value: str) -> bool:
    """Return whether `value` is a URL of at most 8 KiB without white space."""
    return len(value) <= _MAX_URL and _URL(value) is not None


def read_media(value: str) -> EncodedText | bool:
    """Return the text that base64 or a data URL holds, True for binary content, False for any other value."""
    found = _DATA_URL(value)
    if found is None:
        return _read_base64(value, "", is_text=False)
    kind, _, is_base64 = found.groups()
    is_text = bool(_TEXT_TYPE(kind)) or not kind
    if is_base64:
        return _read_base64(value[found.end() :], found.group(), is_text=is_text)
    return False


def _read_base64(data: str, prefix: str, *, is_text: bool) -> EncodedText | bool:
    if not (_BASE64(data) or _WRAPPED(data)):
        return False
    is_urlsafe = "-" in data or "_" in data
    head = _decode(data[: 2 * _HEAD].replace("\r", "").replace("\n", "")[: _HEAD // 3 * 4])
    if not is_text and is_binary(head):
        return len(data) >= _SHORT or head.startswith(_SIGNATURES)
    whole = _decode(data.replace("\r", "").replace("\n", ""))
    if not whole:
        return False
    try:
        text = whole.decode()
    except UnicodeDecodeError:
        # The head is text and the rest is not, as in some documents with binary parts.
        return not is_text and len(data) >= _SHORT
    return EncodedText(text, prefix, is_urlsafe)


def _decode(data: str) -> bytes:
    whole = data.rstrip("=")
    whole = whole[: len(whole) - 1] if len(whole) % 4 == 1 else whole
    try:
        return b64decode(whole.translate(_URLSAFE) + "=" * (-len(whole) % 4))
    except binascii.Error:  # pragma: no cover - the alphabet and the length are right
        return b""


_URLSAFE = str.maketrans("-_", "+/")


def is_binary(head: bytes) -> bool:
    """Return whether bytes that begin a value are media: they have control characters, or are not UTF-8."""
    if _CONTROLS(head):
        return True
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.end < len(head)  # the last character may be cut
    return False
