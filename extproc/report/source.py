"""The lines of audit files: plain or gzip, or from standard input."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from extproc.core.errors import SettingsError

MOST_BYTES = 1 << 20
"""The longest line that is read. A line of the sidecar has a few kilobytes."""

_GZIP = b"\x1f\x8b"


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """Open a file, or with `-` standard input, decompressed; raises SettingsError."""
    try:
        raw = sys.stdin.buffer if file == "-" else open(file, "rb")  # noqa: SIM115
        buffered = io.BufferedReader(cast(io.RawIOBase, raw))
        is_gzip = buffered.peek(2).startswith(_GZIP)
    except OSError as error:
        raise SettingsError([f"{file}: {error.strerror}"]) from None
    try:
        yield cast(BinaryIO, gzip.GzipFile(fileobj=buffered)) if is_gzip else buffered
    finally:
        buffered.detach()  # standard input stays open
        if file != "-":
            raw.close()


def lines(stream: BinaryIO) -> Iterator[bytes | str]:
    """Yield each line that is not empty; instead of one that cannot be read, the problem as text."""
    while True:
        try:
            line = stream.readline(MOST_BYTES)
            is_long = len(line) == MOST_BYTES and not line.endswith(b"\n")
            while is_long and not (rest := stream.readline(MOST_BYTES)).endswith(b"\n") and rest:
                pass
        except (OSError, EOFError, zlib.error):
            yield "the rest of the file cannot be read"
            return
        if not line:
            return
        if is_long:
            yield "too long"
        elif not line.isspace():
            yield line
