"""The words that events, commands and both legs share."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Any

from extproc.core.values import value


class Leg(StrEnum):
    """The two halves of an exchange."""

    REQUEST = "request"
    RESPONSE = "response"


class Hook(StrEnum):
    """Aim's names for the phases whose guards apply."""

    PRE_CALL = "pre_call"
    MODERATION = "moderation"
    OUTPUT = "output"


class BodyMode(Enum):
    """How the data plane hands a body over."""

    BUFFERED = "BUFFERED"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"


class Timer(StrEnum):
    """The clocks that the core asks the shell to run; each fires once."""

    HEAD = "head"  # how long the head of a stream waits for the first verdict
    SILENCE = "silence"  # how long Aim may be silent in a session while text waits
    HELD = "held"  # how long a full hold may stay without a release
    PING = "ping"  # how long a client hears nothing while events wait


Headers = tuple[tuple[str, str], ...]
"""Header fields in order, names in lower case, duplicates kept. Values are bytes decoded as latin-1."""


@value
class Input:
    """One question to Aim: chat messages, and for an answer its text."""

    messages: tuple[Mapping[str, Any], ...]
    output: str | None = None
