"""Forms, written by the specification alone, without the code under test."""

from __future__ import annotations

BOUNDARY = "xYz-1"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00--\r\n"


def part(name: str = "a", content: bytes = b"text", *headers: str, more: str = "") -> bytes:
    """Return a part. `\udc80` to `\udcff` in its headers are the bytes 0x80 to 0xff."""
    lines = (f'Content-Disposition: form-data; name="{name}"{more}', *headers)
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape") + b"\r\n" + content


def form(*parts: bytes, end: bytes = b"\r\n") -> bytes:
    return b"".join(b"--xYz-1\r\n" + each + b"\r\n" for each in parts) + b"--xYz-1--" + end
