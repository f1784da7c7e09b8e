"""The strings at places that hold no text, but a value of a known shape: an address, media, a seal, an opaque value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.core.content.arguments import decode
from extproc.core.content.declared_text import declares_text, wide_media
from extproc.core.content.document import Path
from extproc.core.content.shapes import (
    EncodedText,
    is_data_url,
    looks_like_url,
    looks_like_words,
    looks_opaque,
    read_media,
)
from extproc.core.dialects.found import Found
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import Holds
from extproc.core.dialects.table import UNNAMED, Place
from extproc.core.errors import BodyTooLarge

_MOST_MEDIA = 32_768
"""The most values of one document that are decoded as media. Each takes as long as many texts."""

_MEDIA, _OPAQUE, _SEAL = Holds.MEDIA, Holds.OPAQUE, Holds.SEAL
"""Members by short names, which are found faster in Python 3.11."""

_NOTHING: Mapping[str, Any] = {}
"""An object that says nothing."""


class ShapedValues:
    """Reads such strings of one document. What does not have the shape of its place is a text."""

    __slots__ = ("_around", "_beside", "_declared", "_found", "_is_event", "_media_count")

    def __init__(self, found: Found, *, is_event: bool) -> None:
        """Add the texts to `found`, and the seals of an event."""
        self._found = found
        self._is_event = is_event
        self._around = _NOTHING
        self._beside: Mapping[str, Any] | None = None
        self._media_count = 0
        self._declared = False, False  # whether the media beside the last object are text, and UTF-16

    def surround(self, around: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read an object from now on of which the object `around` it may say that its media are text.

        Return what was around before.
        """
        before, self._around, self._beside = self._around, around, None
        return before

    def read(
        self, text: str, place: Place, path: Path, base: Mapping[str, Any], beside: Mapping[str, Any] = _NOTHING
    ) -> None:
        """Read a string at the place of an address, of media, of a seal or of an opaque value.

        `beside` is the object around it, which may say that media are text: in base64, or, with type `text`, as they
        are.
        """
        if looks_like_words(text):
            pass
        elif place.kind is _OPAQUE or place.kind is _SEAL:
            if looks_opaque(text):
                if place.kind is _SEAL and self._is_event:
                    self._found.leaves.append(Leaf(path, text, kind=Kind.SEAL))
                return
        elif beside.get("type") == "text":
            pass  # a source of Anthropic's, which holds the text itself
        elif looks_like_url(text):
            return
        elif (place.kind is _MEDIA or is_data_url(text)) and (media := self._media(text, beside)):
            if isinstance(media, EncodedText):
                self._found.add(self._encoded(path, media), UNNAMED, base)
            return
        self._found.add(Leaf(path, text), UNNAMED, base)

    def _media(self, text: str, beside: Mapping[str, Any]) -> EncodedText | bool:
        """Read what may be media. The object `beside` it is read once, because it may have many."""
        self._media_count += 1
        if self._media_count > _MOST_MEDIA:
            raise BodyTooLarge("a document has too many media")
        if beside is not self._beside:
            is_text = declares_text(beside) or declares_text(self._around)
            self._declared = is_text, wide_media(beside)
            self._beside = beside
        is_text, is_wide = self._declared
        return read_media(text, is_text=is_text, is_wide=is_wide)

    def _encoded(self, path: Path, media: EncodedText) -> Leaf:
        """Return a text in base64. The strings of JSON are read without their escapes, like arguments."""
        if "\\" not in media.text or media.text.lstrip()[:1] not in ("{", "[") or self._is_event:
            return Leaf(path, media.text, encoded=media)
        return Leaf(path, decode(media.text), is_json=True, raw=media.text, encoded=media)
