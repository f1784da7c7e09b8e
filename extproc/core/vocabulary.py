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
    """How the data plane sends a body."""

    BUFFERED = "BUFFERED"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"


Headers = tuple[tuple[str, str], ...]
"""Header fields in order, names in lower case, duplicates kept. Values are bytes decoded as latin-1."""

CALL_ID_HEADER = "x-aim-call-id"
"""The response header that names the exchange."""


@value
class Input:
    """What one detection judges: chat messages, and for an answer its text."""

    messages: tuple[Mapping[str, Any], ...]
    output: str | None = None
