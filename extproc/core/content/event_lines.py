"""Lines of an event stream other than `data`: which of them pass, and how foreign lines are read."""

from __future__ import annotations

import re
from enum import Enum, auto

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

_VALUE = rb"[ \t]{0,8}(?:@?[A-Za-z0-9._:/+=%-]{1,256})?[ \t]{0,8}"
_TIMEOUT = rb" ?[0-9]{0,16}"
_NAME = re.compile(_VALUE).fullmatch
INERT = {
    b"": re.compile(_COMMENT).fullmatch,
    b"event": _NAME,
    b"id": _NAME,
    b"retry": re.compile(_TIMEOUT).fullmatch,
}
"""The fields without text, with the values that pass. The field without a name is a comment."""

IDLE = re.compile(rb"(?:(?::" + _COMMENT + rb")?(?:\n|\r\n?))++")
"""A run of blank lines and inert comments."""

_END = rb"(?:\n|\r\n|\r(?!\n|\Z))"
"""A line end that is complete: a CR at the end of what has arrived may be followed by its LF."""

_UNREAD = rb"(?::|(?:id|retry)(?=[:\r\n]|\Z))"
"""What lines without data and without a name begin with: they are not read."""

_INERT_LINE = rb"(?::" + _COMMENT + rb"|id(?::" + _VALUE + rb")?|retry(?::" + _TIMEOUT + rb")?)"
INERT_RUN = re.compile(rb"(?:" + _INERT_LINE + _END + rb")+")
"""A run of such lines that pass."""

STARTS_INERT = b":ir"
"""The first bytes that a run of `INERT_RUN` may have."""

STARTS_IDLE = b":\r\n"
"""The first bytes that a run of `IDLE` may have."""

_START = rb"[ \t]*+(?:[A-Za-z0-9._-]{1,64}[ \t]*+:[ \t]*+)?"
_HEAD = re.compile(_START + rb"(?=[{\[\"])")
"""What may precede the JSON of a foreign line."""

_WHOLE = _START + rb"(?:\{[^\r\n]*\}|\[[^\r\n]*\]|\"[^\r\n]*\")[ \t\x0b\x0c]*+(?=[\r\n]|\Z)"
"""A foreign line of JSON that ends in it. Its last byte tells."""

_FOREIGN = rb"(?!(?:data|event|id|retry)(?:[:\r\n]|\Z))[^:\r\n][^\r\n]*+"
"""A foreign line."""


class Run(Enum):
    """Foreign lines that belong together."""

    TEXT = auto()  # lines of any text; a line of JSON is no part of it
    OPEN = auto()  # JSON that does not end in its first line: all lines behind it are part of it
    WHOLE = auto()  # one line of JSON


def run_of(line: bytes) -> Run:
    """Return the run that begins with a foreign line."""
    if _is_whole(line) is not None:
        return Run.WHOLE
    return Run.TEXT if _HEAD.match(line) is None else Run.OPEN


_is_whole = re.compile(_WHOLE).fullmatch
_ANY_RUN = re.compile(rb"(?:(?:" + _UNREAD + rb"[^\r\n]*+|" + _FOREIGN + rb")" + _END + rb")+")
_TEXT_RUN = re.compile(rb"(?:(?:" + _UNREAD + rb"[^\r\n]*+|(?!" + _WHOLE + rb")" + _FOREIGN + rb")" + _END + rb")+")
_UNREAD_RUN = re.compile(rb"(?:" + _UNREAD + rb"[^\r\n]*+" + _END + rb")+")
FOREIGN_RUNS = {None: _UNREAD_RUN, Run.TEXT: _TEXT_RUN, Run.OPEN: _ANY_RUN}
"""The lines that may follow in a run: its own, and lines that are not read. None stands for no run."""

_BEGINS_LINE = rb"(?<![^\r\n])"
_WITH_TEXT = re.compile(
    _BEGINS_LINE + rb"(?!(?:" + _INERT_LINE + rb"|event(?::" + _VALUE + rb")?)(?:[\r\n]|\Z))"
    rb"(?::|(?:event|id|retry)(?=[:\r\n]|\Z))[^\r\n]*+"
)
_UNREAD_LINES = re.compile(_BEGINS_LINE + _UNREAD + rb"[^\r\n]*+(?:\r\n|\r|\n|\Z)")
_FOREIGN_LINES = re.compile(_BEGINS_LINE + _FOREIGN)
_LINE_ENDS = re.compile(rb"\r\n?")


def cleaned(lines: bytes) -> bytes:
    """Return lines of a run; those that are not read and may hold text become empty comments."""
    return _WITH_TEXT.sub(b":", lines)


def emptied(lines: bytes) -> bytes:
    """Return lines of a run with an empty comment in place of each foreign line and of each that may hold text."""
    return _FOREIGN_LINES.sub(b":", cleaned(lines))


def run_text(lines: bytes) -> bytes:
    """Return the foreign lines of a run, each with a LF at its end."""
    text = _LINE_ENDS.sub(b"\n", _UNREAD_LINES.sub(b"", lines))
    return text + b"\n" if text and not text.endswith(b"\n") else text


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
