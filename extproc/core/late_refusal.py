"""The refusal of a response that has begun: an error in the framing of the response, as its last bytes."""

from __future__ import annotations

from extproc.core.content.framing import Framing
from extproc.core.content.json_array import ending
from extproc.core.dialects.base import Dialect
from extproc.core.refusal import Refusal


def late_refusal(
    refusal: Refusal,
    dialect: Dialect,
    framing: Framing,
    *,
    sequence: int = 0,
    is_part: bool = False,
    tail: bytes = b"",
) -> bytes:
    """Return what ends a response with `refusal`.

    `sequence` is the number of the next event, for APIs that number events. `is_part`: the frames of the stream are
    payload parts. `tail` are the last bytes of an array that were released.
    """
    match framing:
        case Framing.JSON_LINES:
            return dialect.refuse_lines(refusal)
        case Framing.AWS_EVENT_STREAM:
            return dialect.refuse_frame(refusal, is_part=is_part)
        case Framing.JSON_ARRAY:
            return ending(tail, dialect.refuse(refusal))
        case _:
            return dialect.refuse_stream(refusal, sequence)
