"""Which requests and answers are read, and how, by media type and first bytes.

Pure decisions; the legs carry them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from extproc.core.content.beginning import begins_like_json, is_blank
from extproc.core.content.document import Document, PlainText
from extproc.core.content.form import FormDocument
from extproc.core.content.framed import FramedDocument
from extproc.core.content.framing import FIRST_BYTES, WHOLE, Framing, Unit, framing_of
from extproc.core.content.lenient_text import with_escapes_decoded
from extproc.core.content.media_type import is_aws_event_stream, is_event_stream, is_json, is_json_lines, is_media
from extproc.core.content.part_headers import boundary_of
from extproc.core.content.server_sent_event import BOM
from extproc.core.content.shapes import is_binary
from extproc.core.content.subtitles import Subtitles, are_subtitles
from extproc.core.dialects.base import Dialect, PlainTexts
from extproc.core.errors import ContentError, MalformedBody
from extproc.core.vocabulary import Headers

ERROR_BYTES = 65_536
"""The largest body of an error answer that is read."""


class Scope(StrEnum):
    """What of an exchange is read."""

    NOTHING = "nothing"
    KNOWN = "known"
    """a dialect knows the path: request and answer are read by it"""
    UNMATCHED = "unmatched"
    """no dialect knows the path: what is JSON is read by the generic dialect"""


class Reading(StrEnum):
    """How a body is read."""

    UNDECIDED = "undecided"
    """its first bytes will tell"""
    UNREAD = "unread"
    WHOLE = Framing.WHOLE.value
    EVENT_STREAM = Framing.EVENT_STREAM.value
    JSON_LINES = Framing.JSON_LINES.value
    AWS_EVENT_STREAM = Framing.AWS_EVENT_STREAM.value
    JSON_ARRAY = Framing.JSON_ARRAY.value

    @property
    def framing(self) -> Framing:
        """The framing of a body that is read."""
        return _FRAMINGS[self]


_FRAMINGS: dict[Reading, Framing] = {
    each: Framing(each.value) for each in Reading if each not in (Reading.UNDECIDED, Reading.UNREAD)
}
_READINGS = {framing: reading for reading, framing in _FRAMINGS.items()}


# -- requests ------------------------------------------------------------------------------------------------------

_DISGUISES = frozenset({"text/plain", "application/x-www-form-urlencoded"})
"""Types under which some clients send JSON."""


def request_reading(types: tuple[str, ...], length: int, limit: int) -> Reading:
    """Return how a request on an unmatched path is read.

    `length` is its declared length, -1 if there is none; `limit` is the largest request that is held. A body that is
    called JSON is read whatever its length, and so meets the failure policy if it is too large.
    """
    if any(map(is_json, types)):
        return Reading.WHOLE
    if any(map(is_json_lines, types)):
        return Reading.JSON_LINES
    return Reading.UNDECIDED if _DISGUISES.issuperset(types) and 0 <= length <= limit else Reading.UNREAD


def begun_reading(first: bytes, *, is_all: bool) -> Reading:
    """Return how an undecided request that begins with `first` is read. `is_all`: no more bytes will tell more."""
    if is_blank(first) and not is_all:
        return Reading.UNDECIDED
    return Reading.WHOLE if first and begins_like_json(first) else Reading.UNREAD


def is_preflight(headers: Headers, *, end_of_stream: bool) -> bool:
    """Return whether a request is a CORS preflight, which browsers send by themselves and without a body."""
    if not end_of_stream or (":method", "OPTIONS") not in headers:
        return False
    names = {name for name, _ in headers}
    return "origin" in names and "access-control-request-method" in names


# -- answers -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """An answer, as its request and its headers describe it. Treat it as frozen: a frozen one takes twice as long."""

    scope: Scope
    status: str
    types: tuple[str, ...] = ()
    length: int = -1
    """the declared length; -1 if there is none"""
    is_get: bool = False
    is_local: bool = False
    """whether it is Envoy's own"""
    has_media: bool = False
    """whether answers of its dialect may be sounds or images"""
    streams_in: Framing | None = None
    """how answers of its dialect that are called JSON are streams; see `Dialect.streams_in`"""

    @property
    def is_error(self) -> bool:
        """Return whether the status is 4xx or 5xx."""
        return self.status.startswith(("4", "5"))

    @property
    def is_part(self) -> bool:
        """Return whether a stored answer is a range of a longer one: a client may cut it so that no word is whole."""
        return self.is_get and self.scope is Scope.KNOWN and self.status == "206"

    @property
    def is_certain(self) -> bool:
        """Return whether an answer that begins to be read will be read: an error of unknown length may be too large."""
        return not self.is_error or self.length >= 0

    @property
    def passes_others(self) -> bool:
        """Return whether what is neither JSON nor an event stream passes, instead of being unreadable."""
        return self.is_get or self.is_error

    def reading(self, first: bytes = b"", *, is_all: bool = False) -> Reading:
        """Return how the answer is read if it begins with `first`. `is_all`: no more bytes will tell more."""
        if self.scope is Scope.NOTHING or not (self.is_error or self.status.startswith("2")):
            return Reading.UNREAD
        if self.is_error and (self.is_local or self.length > ERROR_BYTES):
            return Reading.UNREAD
        if self.scope is Scope.UNMATCHED and not any(map(_is_named, self.types)):
            return Reading.UNREAD
        if self.is_part:
            if not is_all:
                return Reading.UNDECIDED
            return Reading.UNREAD if is_binary(first.lstrip(_CONTINUATION)) else Reading.WHOLE
        # Several types say nothing: readers differ in which of them they believe.
        media_type = self.types[0] if len(self.types) == 1 else ""
        framing = framing_of(media_type, first, is_all=is_all)
        if framing is None and not is_all:
            return Reading.UNDECIDED
        if framing is WHOLE and self.streams_in is Framing.JSON_ARRAY and not self.is_error:
            if not is_all and (is_blank(first) or BOM.startswith(first)):
                return Reading.UNDECIDED
            if first.removeprefix(BOM).lstrip().startswith(b"["):
                return Reading.JSON_ARRAY
        if framing is WHOLE and self.streams_in is Framing.JSON_LINES and not (self.is_error or is_json(media_type)):
            # A document of several lines has a line end near its begin. It is read as a whole.
            if not (is_all or len(first) >= FIRST_BYTES):
                return Reading.UNDECIDED
            if first.removeprefix(BOM).lstrip().startswith(b"{") and b"\n" not in first.strip():
                return Reading.JSON_LINES
        if framing in _CUT or is_json(media_type):
            return _READINGS[framing or WHOLE]
        if self.passes_others and not (first and begins_like_json(first)):
            return Reading.UNREAD
        if is_media(media_type) and self.has_media:
            if not is_all:
                return Reading.UNDECIDED
            if is_binary(first):
                return Reading.UNREAD
        return Reading.WHOLE


_CONTINUATION = bytes(range(0x80, 0xC0))
"""The bytes of UTF-8 with which no character begins. A part of a text may begin with them."""

_CUT = (Framing.EVENT_STREAM, Framing.JSON_LINES, Framing.AWS_EVENT_STREAM)
"""The framings of several documents, as far as type and first bytes tell."""


def _is_named(media_type: str) -> bool:
    is_stream = is_event_stream(media_type) or is_aws_event_stream(media_type)
    return is_json(media_type) or is_json_lines(media_type) or is_stream


# -- documents -----------------------------------------------------------------------------------------------------


def document_of(dialect: Dialect, body: bytes, framing: Framing, values: int, *, is_answer: bool = False) -> Document:
    """Return a whole body, with at most `values` values, as a document of `dialect`.

    An answer may be lines of JSON although its media type is that of one document. So may a request of the generic
    dialect, which also takes what is no JSON as one plain text, as some dialects do in answers.

    Raises BodyTooLarge, and MalformedBody for what is not UTF-8 and, for other dialects, not in the framing.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody("not UTF-8") from error
    if framing is WHOLE and is_answer and dialect.plain_texts is PlainTexts.ANSWERS:
        return _object_or_text(text, values)
    if framing is WHOLE:
        if not ((is_answer or dialect.plain_texts is PlainTexts.EVERYWHERE) and _has_lines(text, values)):
            return dialect.parse(text, values)
        framing = Framing.JSON_LINES

    def parse(unit: Unit) -> Document | None:
        data = unit.data or ""
        if dialect.is_final(data, None):
            return None
        document = dialect.parse(data, values, is_foreign=unit.is_foreign, is_event=True)
        # The texts of an answer may be pieces of one. Their escapes are decoded where they are joined.
        return document if is_answer else with_escapes_decoded(document)

    return FramedDocument(text, values, framing, parse)


def form_of(dialect: Dialect, body: bytes, content_type: str, values: int) -> FormDocument:
    """Return a whole form, with at most `values` values, as a document of `dialect`; raise like `document_of`."""

    def parse(text: str, framing: Framing) -> Document:
        return document_of(dialect, text.encode(), framing, values)

    return FormDocument(body, boundary_of(content_type), values, parse)


def _object_or_text(text: str, values: int) -> Document:
    """Return an answer as JSON if it is an object, else as one text.

    Raises MalformedBody for a text with NUL, which may be UTF-16.
    """
    try:
        document = Document(text, values)
    except MalformedBody:
        document = None
    if document is not None and isinstance(document.root, dict):
        return document
    if "\0" in text:
        raise MalformedBody("a text with NUL")
    return Subtitles(text) if are_subtitles(text) else PlainText(text)


def _has_lines(text: str, values: int) -> bool:
    """Return whether the first of several lines is a JSON document."""
    first, _, rest = text.strip().partition("\n")
    try:
        return bool(rest) and Document(first, values) is not None
    except ContentError:
        return False
