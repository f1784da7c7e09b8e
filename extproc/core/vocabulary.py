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


class Hook(StrEnum):
    """Aim's names for the phases of an exchange in which guards apply."""

    PRE_CALL = "pre_call"
    MODERATION = "moderation"
    OUTPUT = "output"


class BodyMode(Enum):
    """How the data plane sends a body."""

    BUFFERED = "BUFFERED"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"


Headers = tuple[tuple[str, str], ...]
"""Header fields in order, with names in lower case and duplicates kept. Values are bytes decoded as latin-1."""

CALL_ID_HEADER = "x-aim-call-id"
"""The response header that identifies the exchange."""


_MESSAGE_BYTES = 576
"""The memory that a message takes in addition to its text: two objects and its place (measured: 500 to 640)."""


def size_of(messages: Iterable[Mapping[str, Any]]) -> int:
    """Return the memory that chat messages take, in bytes: their texts, and a constant for each message."""
    return sum(_MESSAGE_BYTES + sys.getsizeof(message.get("content")) for message in messages)


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a detection: chat messages and, for an answer, its text.

    Inputs of one detection that have the same messages share the tuple: it is then encoded once.
    """

    messages: tuple[Mapping[str, Any], ...]
    output: str | None = None
