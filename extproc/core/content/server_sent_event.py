"""One event of an event stream, or foreign lines, with the bytes that it came in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from extproc.core.content.event_lines import foreign_line, is_foreign

BOM = b"\xef\xbb\xbf"
"""The byte order mark. It may only precede the first line of a stream."""

_LINE_ENDS = re.compile(rb"\r\n|\r|\n")
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event, a run of comments and blank lines, or foreign lines. `raw` are its bytes, including the blank line.

    `data` is None without a data field (comments, retry); `type` is empty without an event field. The first event of a
    stream may begin with a byte order mark. One before any other line is part of the name of a foreign line.

    A foreign line has no field of an event stream: most readers of events skip it, but others do not. With `is_foreign`
    the `data` is the text of such lines, which may be JSON or any other text. One line of JSON is an event of its own;
    a name before it, as in `error: {...}`, is not part of the data.
    """

    raw: bytes
    data: str | None = None
    type: str = ""
    is_first: bool = False
    is_foreign: bool = False

    def with_data(self, data: str) -> bytes:
        """Return the event's bytes with other data; its other lines and its line ends stay.

        The data of foreign lines becomes one line, with spaces for its line ends.
        """
        parts = _LINE_ENDS.split(data.encode())
        start = len(BOM) if self.is_first and self.raw.startswith(BOM) else 0
        out = bytearray(self.raw[:start])
        is_written = False
        for line, end in _LINE.findall(self.raw, start):
            name, colon, value = line.partition(b":")
            if not (is_foreign(name) if self.is_foreign else name == b"data"):
                if out.endswith(b"\r") and not line and end == b"\n":
                    out[-1:] = b"\n"  # without the lines in between, CR and LF would become one line end
                out += line + end
            elif is_written:
                continue
            elif self.is_foreign:
                is_written = True
                out += foreign_line(line, b" ".join(parts)) + end
            else:
                is_written = True
                has_space = not colon or value.startswith(b" ") or any(part.startswith(b" ") for part in parts)
                field = b"data: " if has_space else b"data:"
                out += (end or b"\n").join(field + part for part in parts) + end
        return bytes(out)
