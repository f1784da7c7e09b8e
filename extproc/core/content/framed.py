"""A whole body of several documents: an event stream or JSON lines that were held to their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from extproc.core.content.document import Document, Edit, Path
from extproc.core.content.framing import Framing
from extproc.core.content.json_lines import LineDecoder
from extproc.core.content.sse import EventDecoder, ServerSentEvent
from extproc.core.errors import MalformedBody


class FramedDocument(Document):
    """The documents of a body as one. A path begins with the number of a document."""

    __slots__ = ("_events", "documents")

    def __init__(self, body: bytes, framing: Framing, parse: Callable[[str], Document | None]) -> None:
        """Cut `body` into documents. `parse` returns None for data that holds no document.

        Raises MalformedBody for a body that is not in the framing.
        """
        limit = len(body) + 1
        decoder = LineDecoder(limit) if framing is Framing.JSON_LINES else EventDecoder(limit)
        self._events: list[ServerSentEvent] = [*decoder.feed(body), *decoder.finish()]
        self.text = "".join(event.raw.decode() for event in self._events)
        self.documents = [self._parsed(event, parse) for event in self._events]
        self.root = [document and document.root for document in self.documents]

    @staticmethod
    def _parsed(event: ServerSentEvent, parse: Callable[[str], Document | None]) -> Document | None:
        if event.is_foreign:
            raise MalformedBody("a line does not belong to an event stream")
        return parse(event.data) if event.data and event.data.strip() else None

    def forget(self) -> None:
        """Free the parsed values."""
        self.root = None
        for document in self.documents:
            if document is not None:
                document.forget()

    def rewrite(self, edits: Mapping[Path, Edit]) -> str:
        """Return the text with the value at each path replaced; raise KeyError for a path that does not exist."""
        inside: dict[str | int, dict[Path, Edit]] = {}
        for path, value in edits.items():
            inside.setdefault(path[0], {})[path[1:]] = value
        pieces = []
        for number, (event, document) in enumerate(zip(self._events, self.documents, strict=True)):
            if document is None or number not in inside:
                pieces.append(event.raw.decode())
            else:
                pieces.append(event.with_data(document.rewrite(inside.pop(number))).decode())
        if inside:
            raise KeyError("an edit names a document that the body lacks")
        return "".join(pieces)
