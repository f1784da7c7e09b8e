"""Lines of an event stream other than `data`: which of them pass, and how foreign lines are read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TIME = (
    rb"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
    rb"|[0-9]{1,13}(?:\.[0-9]{1,6})?)"
)
_WORDS = (
    rb"(?i:ping|pong|keep-?alive|heart-?beat|hb|ok|open|connected|processing|OPENROUTER PROCESSING"
    rb"|stream (?:start|started|complete|completed|end|ended))"
)
_COMMENT = rb"[ \t]{0,2}(?:" + _WORDS + rb"(?:[ \t]?[-:]?[ \t]?" + _TIME + rb")?|" + _TIME + rb")?[ \t]{0,2}"
"""Comments that pass: what servers send to keep a connection open. None is longer than 64 bytes."""

_NAME = re.compile(rb"[ \t]{0,8}(?:@?[A-Za-z0-9._:/+=%-]{1,256})?[ \t]{0,8}").fullmatch
INERT = {
    b"": re.compile(_COMMENT).fullmatch,
    b"event": _NAME,
    b"id": _NAME,
    b"retry": re.compile(rb" ?[0-9]{0,16}").fullmatch,
}
"""The fields without text, with the values that pass. The field without a name is a comment."""

IDLE = re.compile(rb"(?:(?::" + _COMMENT + rb")?(?:\n|\r\n?))++")
"""A run of blank lines and inert comments."""

COMMENTS = re.compile(rb"(?::" + _COMMENT + rb"(?:\n|\r\n|\r(?!\n|\Z)))++")
STARTS_IDLE = b":\r\n"
"""The first bytes that a run of `IDLE` may have."""

_HEAD = re.compile(rb"[ \t]*+(?:[A-Za-z0-9._-]{1,64}[ \t]*+:[ \t]*+)?(?=[{\[\"])")
"""What may precede the JSON of a foreign line."""

_CLOSER = {b"{": b"}", b"[": b"]", b'"': b'"'}


def is_foreign(name: bytes) -> bool:
    """Return whether no field of an event stream has this name. A comment has the name `b""`."""
    return name != b"data" and name not in INERT


def foreign_text(line: bytes) -> bytes:
    """Return the text of a foreign line: all of it, or the JSON behind its name."""
    head = _HEAD.match(line)
    return line if head is None else line[head.end() :]


def foreign_line(old: bytes, text: bytes) -> bytes:
    """Return a foreign line with another text; it must not become a blank line or a field."""
    line = old[: len(old) - len(foreign_text(old))] + text
    if not line:
        return b":"
    return line if is_foreign(line.partition(b":")[0]) else b" " + line


@dataclass(slots=True)
class ForeignRun:
    """Foreign lines that belong together: one line of JSON (`is_whole`), or several of JSON (`is_open`) or text.

    `lines` are their places in a buffer.
    """

    is_whole: bool
    is_open: bool
    lines: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def beginning_with(cls, line: bytes) -> ForeignRun:
        """Return a run whose first line is `line`. Its last byte tells whether JSON ends in it."""
        if _HEAD.match(line) is None:
            return cls(is_whole=False, is_open=False)
        text = foreign_text(line).rstrip()
        is_whole = len(text) > 1 and text.endswith(_CLOSER[text[:1]])
        return cls(is_whole, is_open=not is_whole)

    def takes(self, run: ForeignRun) -> bool:
        """Return whether the lines of `run` continue this one."""
        return self.is_open or not (self.is_whole or run.is_whole)
