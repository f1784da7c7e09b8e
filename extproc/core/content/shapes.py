"""The shapes of strings that hold no text: identifiers, opaque values, URLs and media.

A place that is known to hold such a value is trusted only as far as the value looks like one. A sentence at the place
of an identifier is a text.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass

from extproc.core.content.declared_text import declares_wide, is_text_type
from extproc.core.errors import MalformedBody

looks_inert = re.compile(r"@?[A-Za-z0-9._:/+=%-]{1,256}").fullmatch
"""Match an identifier, a name of a model or type, an enum, a number or a time. An e-mail address is none."""

_MAX_URL = 8192

_URL = re.compile(r"(?:https?|gs|s3)://\S+", re.IGNORECASE).fullmatch

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}").fullmatch

_WRAPPED = re.compile(r"(?:[A-Za-z0-9+/]{60,76}\r?\n)+[A-Za-z0-9+/]{0,76}={0,2}(?:\r?\n)?").fullmatch
"""Base64 in lines, as MIME (RFC 2045, 6.8) and PEM (RFC 1421) write it."""

_SCHEME = "data:"

_BASE64_MARK = ";base64"
"""What the header of a data URL ends with if the data are in base64."""

_HEAD = 64
"""The number of bytes by which media are recognised."""

_HEAD_CHARACTERS = _HEAD // 3 * 4
"""The number of characters of base64 that are decoded for them."""

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


@dataclass(slots=True)
class EncodedText:
    """A text in base64. `prefix` is the part of a data URL before it, `mark` a byte order mark of UTF-16.

    Treat it as frozen: a frozen one takes twice as long.
    """

    text: str
    prefix: str = ""
    is_urlsafe: bool = False
    charset: str = "utf-8"
    mark: bytes = b""

    def encode(self, text: str) -> str:
        """Return another text in the same encoding. What Latin-1 lacks becomes `?`."""
        encode = urlsafe_b64encode if self.is_urlsafe else b64encode
        data = text.encode(self.charset, "replace" if self.charset == _LATIN else "surrogatepass")
        return self.prefix + encode(self.mark + data).decode()


def looks_opaque(value: str) -> bool:
    """Return whether `value` looks like a signature, a cursor or encrypted content: base64 of any length."""
    return looks_inert(value) is not None or _BASE64(value) is not None or _WRAPPED(value) is not None


def looks_like_words(value: str) -> bool:
    """Return whether `value` is certainly a text: it has a space, which no other shape has but a data URL."""
    return " " in value and value[: len(_SCHEME)].lower() != _SCHEME


def looks_like_url(value: str) -> bool:
    """Return whether `value` is a URL of at most 8 KiB without white space."""
    return len(value) <= _MAX_URL and _URL(value) is not None


def read_media(value: str, *, is_text: bool = False, is_wide: bool = False) -> EncodedText | bool:
    """Return the text that base64 or a data URL holds, True for binary content, False for any other value.

    Base64 that is said to be a text (`is_text`, or the type in a data URL) is never binary content: what cannot be
    decoded is some other value. Raises MalformedBody for a text in a charset that is not read, and if it is said to be
    UTF-16 (`is_wide`, or in a data URL) but does not look so.
    """
    comma = value.find(",") if is_data_url(value) else -1
    if comma < 0:
        return _read_base64(value, "", is_text=is_text, is_wide=is_wide)
    kind = value[len(_SCHEME) : comma]
    is_wide = is_wide or declares_wide(kind)
    is_text = is_text or is_text_type(kind) or kind[:1] in ("", ";")
    if value[max(len(_SCHEME), comma - len(_BASE64_MARK)) : comma].lower() == _BASE64_MARK:
        return _read_base64(value[comma + 1 :], value[: comma + 1], is_text=is_text, is_wide=is_wide)
    return False


def is_data_url(value: str) -> bool:
    """Return whether `value` begins like a data URL."""
    return value[: len(_SCHEME)].lower() == _SCHEME


def _read_base64(data: str, prefix: str, *, is_text: bool, is_wide: bool) -> EncodedText | bool:
    if not (_BASE64(data) or _WRAPPED(data)):
        return False
    head = _decode(data[: 2 * _HEAD].replace("\r", "").replace("\n", "")[:_HEAD_CHARACTERS])
    charset, mark = _wide(head)
    if is_wide and charset == "utf-8":
        raise MalformedBody("a text that is said to be UTF-16")
    is_long = len(data) >= _SHORT
    if not is_text and charset == "utf-8" and is_binary(head):
        if head.startswith(_SIGNATURES):
            return True
        if not is_long or _repaired(head, is_text=False) is None:
            return is_long
    whole = head if len(data) <= _HEAD_CHARACTERS else _decode(data.replace("\r", "").replace("\n", ""))
    if not whole:
        return False
    is_urlsafe = "-" in data or "_" in data
    try:
        return EncodedText(whole[len(mark) :].decode(charset), prefix, is_urlsafe, charset, mark)
    except UnicodeDecodeError:
        if not is_text and not is_long:
            return False
    if not is_text and head.startswith(_DOCUMENTS):
        return True
    found = _repaired(whole[len(mark) :], charset, is_text=is_text)
    if found is None:
        return not is_text  # what is said to be text may be words, which can be valid base64, too
    return EncodedText(found[1], prefix, is_urlsafe, found[0], mark)


_DOCUMENTS = (b"%PDF-",)
"""Signatures of formats that are binary although most of their bytes may be text."""

_FEW, _VERY_FEW = 8, 16
"""One of so many bytes may be none of a text."""

_ASCII = bytes(range(0x80))


def _repaired(data: bytes, charset: str = "utf-8", *, is_text: bool) -> tuple[str, str] | None:
    """Return the charset of bytes of which few are no text in it, and the text; None if too many are no text.

    It is Latin-1 if UTF-8 would lose more characters than it has beyond ASCII. In bytes that are not said to be text,
    each byte of such characters counts as none of a text.
    """
    text = data.decode(charset, "replace")
    lost = text.count(_LOST)
    if charset == "utf-8":
        beyond = len(data.translate(None, _ASCII))  # bytes beyond ASCII
        if len(text) - lost - (len(data) - beyond) <= lost:
            charset, text = _LATIN, data.decode(_LATIN)
            lost = 0 if is_text else beyond
    controls = len(_CONTROLS_OF_LATIN.findall(text)) if is_text else len(_CONTROLS_OF_TEXT.findall(text))
    return (charset, text) if (lost + controls) * (_VERY_FEW if is_text else _FEW) <= len(text) else None


_LOST = "\ufffd"

_CONTROLS_OF_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")

_CONTROLS_OF_LATIN = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f]")

_LATIN = "latin-1"
"""The encoding of bytes that are text, but no UTF-8 or UTF-16, and have few control characters in it."""

_MARKS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def _wide(head: bytes) -> tuple[str, bytes]:
    """Return the encoding of bytes that begin so, and their byte order mark: UTF-16, or else UTF-8 without one.

    Without a mark they are UTF-16 if most of every second byte is zero, and no other byte is, as in Latin scripts.
    """
    if head.isascii() and 0 not in head:
        return "utf-8", b""  # as most are
    for mark, charset in _MARKS:
        if head.startswith(mark) and not _has_controls(head[len(mark) :], charset):
            return charset, mark
    if not head.startswith(_SIGNATURES):
        for zeros, others, charset in ((head[1::2], head[::2], "utf-16-le"), (head[::2], head[1::2], "utf-16-be")):
            if 2 * zeros.count(0) > len(zeros) and 0 not in others and not _has_controls(head, charset):
                return charset, b""
    return "utf-8", b""


def _has_controls(head: bytes, charset: str) -> bool:
    text = head.decode(charset, "replace")
    return _CONTROLS(text.encode("utf-8", "surrogatepass")) is not None


def _decode(data: str) -> bytes:
    whole = data.rstrip("=")
    whole = whole[: len(whole) - 1] if len(whole) % 4 == 1 else whole
    try:
        # The same as `base64.b64decode`, which takes twice as long.
        return binascii.a2b_base64(whole.translate(_URLSAFE) + "=" * (-len(whole) % 4))
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
