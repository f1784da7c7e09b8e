"""The types that events, commands and both legs share."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any


class Leg(StrEnum):
    """The two halves of an exchange."""

    REQUEST = "request"
    RESPONSE = "response"


REQUEST, RESPONSE = Leg
"""The legs by short names. In Python 3.11 an enum takes as long to find a member as five calls take."""


class Hook(StrEnum):
    """Aim's names for the phases of an exchange in which guards apply."""

    PRE_CALL = "pre_call"
    MODERATION = "moderation"
    OUTPUT = "output"


PRE_CALL, MODERATION, OUTPUT = Hook
"""The hooks by short names."""


class BodyMode(Enum):
    """How the data plane sends a body."""

    BUFFERED = "BUFFERED"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"


Headers = tuple[tuple[str, str], ...]
"""Header fields in order, with names in lower case and duplicates kept. Values are bytes decoded as latin-1."""

CALL_ID_HEADER = "x-aim-call-id"
"""The response header that identifies the exchange."""

MAX_CHOICE = 1023
"""The largest choice index that is submitted to Aim unchanged. Other texts get indices above it."""

_MESSAGE_BYTES = 576
"""The memory that a message takes in addition to its text: two objects and its place (measured: 500 to 640)."""


_FLAT_BYTES = _MESSAGE_BYTES + sys.getsizeof("assistant")


def size_of(messages: Iterable[Mapping[str, Any]]) -> int:
    """Return the memory that chat messages take, in bytes: their texts, and a constant for each message and value."""
    size = 0
    for message in messages:
        if len(message) == 2 and type(content := message.get("content")) is str:
            size += _FLAT_BYTES + sys.getsizeof(content)  # a role, whose text is short, and a content
        else:
            size += _MESSAGE_BYTES + _size_of(message)
    return size


def _size_of(node: Any) -> int:
    if type(node) is str:
        return sys.getsizeof(node)
    size = _VALUE_BYTES
    if isinstance(node, list):
        for value in node:
            size += _size_of(value)
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if type(value) is str:
                size += sys.getsizeof(key) + sys.getsizeof(value)
            elif value is not None:
                size += sys.getsizeof(key) + _size_of(value)
    return size


_VALUE_BYTES = 32
"""The memory that a number, a list or an object takes, with its place."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a detection: chat messages and, for an answer, its text.

    Inputs of one detection that have the same messages share the tuple: it is then encoded once.
    """

    messages: tuple[Mapping[str, Any], ...]
    output: str | None = None
