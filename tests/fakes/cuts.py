"""A stream of bytes cut into pieces, as a network may do it, and a decoder fed with them."""

from __future__ import annotations

from hypothesis import strategies as st

from extproc.core.content.framing import Decoder, Unit
from extproc.core.errors import ContentError

PLACES = st.lists(st.integers(0, 2**32), max_size=12)
"""Where a stream is cut, for `cut`."""


def bytewise(data: bytes) -> list[bytes]:
    """Return each byte as a piece."""
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the pieces between these places, taken modulo the length. There may be empty ones."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def run(decoder: Decoder, pieces: list[bytes]) -> tuple[list[Unit], type[ContentError] | None, bytes]:
    """Return the units, the error that ended them, and the bytes that were not turned into units."""
    units: list[Unit] = []
    unfed = list(pieces)
    try:
        while unfed:
            units.extend(decoder.feed(unfed.pop(0)))
        units.extend(decoder.finish())
    except ContentError as error:
        return units, type(error), decoder.take_rest() + b"".join(unfed)
    return units, None, decoder.take_rest()
