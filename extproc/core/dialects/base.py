"""What every dialect does: it reads documents by its tables, and refuses in the shape of its API."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.content.aws_event_stream import exception_frame
from extproc.core.content.census import MAX_VALUES
from extproc.core.content.document import Document, Path, PlainText, fields
from extproc.core.content.framing import Framing
from extproc.core.dialects.found import Mode
from extproc.core.dialects.joined import Parts
from extproc.core.dialects.leaf import Kind, Leaf, Prompt
from extproc.core.dialects.table import Table
from extproc.core.dialects.walk import Walk
from extproc.core.errors import MalformedBody
from extproc.core.policy import Inspect
from extproc.core.refusal import Refusal
from extproc.core.vocabulary import Headers

Running = tuple[Hashable, ...]
"""The identity of a running text: the keys to it, and the indices that the API gives to choices and parts."""


_EXCEPTIONS = {400: "validationException", 503: "serviceUnavailableException"}
"""The exceptions that streams of Bedrock may have, by the status of a refusal."""

_LONGEST_NAME = 64
_LONGEST_ID = 64

_TRUE = frozenset({"true", "1", "yes", "on", "y", "t"})


class PlainTexts(Enum):
    """Where an API has one plain text in place of JSON."""

    NONE = auto()
    """nowhere: what is no JSON is unreadable"""
    ANSWERS = auto()
    """in whole answers that are no JSON object"""
    EVERYWHERE = auto()
    """in all that is no JSON"""


class Dialect:
    """One provider API, as data: tables that say how to read its documents.

    The defaults are those of an API like OpenAI's. Every method that reads a document raises MalformedBody if it cannot
    determine the texts with certainty.
    """

    name: str
    request: Table
    answer: Table
    event: Table
    unit_depth = 2
    """How many steps of a path or a running text identify its choice or part, whose tokens go with a rewrite."""
    is_repetitive = False
    """Whether a stream repeats its texts, or signs them."""
    clients_skip_comments = True
    """Whether the API's clients skip comments in a stream."""
    answers_media = False
    """Whether a whole answer may be audio or an image."""
    streams_in: Framing | None = None
    """How answers that are called JSON are streams: JSON_ARRAY if an array is one that grows by its elements,
    JSON_LINES if they are lines, each of them an answer of its own; None if they are none."""
    plain_texts = PlainTexts.NONE
    """Where a text that is no JSON is read as it is."""
    takes_forms = False
    """Whether a request may be a form of several parts."""
    is_often_silent = False
    """Whether a stream may have no text for long: its session then begins with its first text."""
    is_two_way = False
    """Whether request and answer are streams at the same time, so that the request is never whole."""
    has_records = False
    """Whether a request holds several requests, each of which is an input of its own."""
    opt_in: Inspect | None = None
    """The setting that switches the inspection of this dialect on; None if it is always on."""

    def parse(
        self, text: str, values: int = MAX_VALUES, *, is_foreign: bool = False, is_event: bool = False
    ) -> Document:
        """Return a document of at most `values` values. Foreign text may be no JSON, in any dialect.

        A number or word alone is a piece of a text if it is foreign, or an event where all that is no JSON is a text.
        Raises BodyTooLarge, and MalformedBody for what is no JSON but should be.
        """
        is_plain = is_foreign or self.plain_texts is PlainTexts.EVERYWHERE
        try:
            document = Document(text, values)
        except MalformedBody:
            # With NUL it may be UTF-16, which is no text for Aim but JSON for some readers.
            if is_plain and "\0" not in text:
                return PlainText(text)
            raise
        if is_foreign or (is_plain and is_event):
            kind = type(document.root)
            if not (kind is dict or kind is list or (kind is str and not is_foreign)):
                return PlainText(text)
        return document

    def prompts(self, document: Document, *, tools: bool, locates: bool = False) -> list[Prompt]:
        """Return the request's messages, one for each text, in order. With `tools`, tool definitions come first.

        With `locates` the parts of joined texts are known, too, so that a redaction can be put back.
        """
        root = document.root
        reading = Walk(self.request, Mode.REQUEST, wants_tools=tools, locates=locates).run(document)
        if not reading.prompts and not isinstance(root, dict) and self.plain_texts is not PlainTexts.EVERYWHERE:
            raise MalformedBody("a request of an unknown shape")
        return [*reading.definitions, *reading.prompts]

    def streams(self, document: Document, path: str) -> bool:
        """Return whether the request, sent to `path`, asks for an event stream."""
        return fields(document.root).get("stream") is True

    def after(self, request: Document, *, tools: bool) -> Dialect:
        """Return the dialect of the answer to `request`, and of its refusal. With `tools` definitions are inspected."""
        return self

    def answers(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of a whole answer: the named ones, and then all others joined.

        Last come the tokens that no text of their choice or part accompanies.
        """
        return self._with_tokens(Walk(self.answer, Mode.ANSWER, locates=locates).run(document).leaves)

    def _with_tokens(self, leaves: list[Leaf]) -> list[Leaf]:
        """Return the texts, each with the tokens that go with a rewrite of it, and the tokens without a text."""
        tokens = [leaf for leaf in leaves if leaf.kind is Kind.TOKENS]
        if not tokens:
            return leaves
        texts = [leaf for leaf in leaves if leaf.kind is not Kind.TOKENS]
        units: dict[Hashable, list[Path]] = {}
        for leaf in tokens:
            leaf.unit = self._unit(leaf, leaf.path)
            units.setdefault(leaf.unit, []).append(leaf.path)
        everywhere = tuple(units.pop(None, ()))
        nulled = {unit: tuple(paths) for unit, paths in units.items()}

        def mark(leaf: Leaf) -> None:
            # Texts of one unit share the tuples, because there may be many of both.
            leaf.nulled_everywhere = everywhere
            leaf.nulled = nulled.get(self._unit(leaf, leaf.path), ()) if leaf.path else ()

        for leaf in texts:
            mark(leaf)
            if isinstance(leaf.parts, Parts):
                leaf.parts.mark = mark
        named = (leaf for leaf in texts if not leaf.is_joined)
        accompanied = {None, *(self._unit(leaf, leaf.path) for leaf in named)} if texts else ()
        return [*texts, *(leaf for leaf in tokens if leaf.unit not in accompanied)]

    def _unit(self, leaf: Leaf, place: tuple[Hashable, ...]) -> Hashable:
        """Return the identity of the choice or part at `place`; None for tokens that spell any text."""
        return None if leaf.is_everywhere or len(place) <= self.unit_depth - 1 else place[: self.unit_depth]

    def deltas(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of one event of a stream, and its tokens and signatures."""
        root = document.root
        leaves = Walk(self.event_table(root), Mode.EVENT, locates=locates).run(document).leaves
        return [self._placed(leaf, root, number) for number, leaf in enumerate(leaves)]

    def event_table(self, root: Any) -> Table:
        """Return the table for an event."""
        return self.event

    def _placed(self, leaf: Leaf, root: Any, number: int) -> Leaf:
        if leaf.is_joined:
            return replace(leaf, number=number)
        leaf.place = place = self.place(root, leaf)
        leaf.unit = self._unit(leaf, place)
        if leaf.kind is Kind.TEXT:
            leaf.kind = self.kind(root, leaf)
            leaf.index = self.chunk_index(root, leaf, place)
        return leaf

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return the identity of the running text that a leaf continues, or of the text that it signs."""
        return running(root, leaf.path)

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is new text or a repeat."""
        return Kind.TEXT

    def chunk_index(self, root: Any, leaf: Leaf, place: Running) -> int | None:
        """Return the choice index under which Aim reads the leaf in the unchanged event, if it does."""
        return None

    def is_submitted_whole(self, document: Document) -> bool:
        """Return whether Aim understands the unchanged event; if not, its texts are submitted as chunks."""
        return False

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether an event ends the stream. `document` is None if the event was not parsed."""
        return document is None and data.strip() == "[DONE]"

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer that a block of a request to `path` can become; None if the API has none of text."""
        return None

    def stream_framing(self, path: str) -> Framing:
        """Return the framing of a stream that answers a request to `path`."""
        return Framing.AWS_EVENT_STREAM if endpoint(path).endswith("-response-stream") else Framing.EVENT_STREAM

    def status(self, refusal: Refusal) -> int:
        """Return the status of a refusal."""
        return refusal.http_status

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the JSON body of a refusal."""
        error = {"message": refusal.message, "type": refusal.type, "param": None, "code": refusal.code}
        return json.dumps({"error": error}).encode()

    def refusal_headers(self, refusal: Refusal) -> Headers:
        """Return the headers that a refusal has beside those of every refusal."""
        return ()

    def refuse_frame(self, refusal: Refusal, *, is_part: bool = False) -> bytes:
        """Return the frame that ends a running AWS event stream with a refusal: SageMaker's, or else Bedrock's."""
        if is_part:
            said = {"ErrorCode": refusal.code, "Message": refusal.message}
            return exception_frame("ModelStreamError", json.dumps(said).encode())
        kind = _EXCEPTIONS.get(refusal.status, "internalServerException")
        return exception_frame(kind, json.dumps({"message": refusal.message}).encode())

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the events that end a running stream with a refusal. `sequence` is the number of the first."""
        return b"data: " + self.refuse(refusal) + b"\n\ndata: [DONE]\n\n"

    def refuse_lines(self, refusal: Refusal) -> bytes:
        """Return the lines that end a running stream of JSON lines with a refusal."""
        return self.refuse(refusal) + b"\n"


def endpoint(path: str) -> str:
    """Return a client's path without query and trailing slash, in lower case."""
    return path.partition("?")[0].rstrip("/").lower()


def running(root: Any, path: Path) -> Running:
    """Return a path with the indices that entries of lists give themselves in place of their positions."""
    node = root
    steps: list[Hashable] = []
    for step in path:
        node = node[step]
        own = node.get("index") if type(step) is int and type(node) is dict else None
        steps.append(own if isinstance(own, int) else short_name(own) or step)
    return tuple(steps)


def asks_in_form(document: Document) -> bool:
    """Return whether a form asks for an event stream. Its fields are strings, and servers read several as true."""
    stream = fields(document.root).get("stream")
    return isinstance(stream, str) and stream.strip().lower() in _TRUE


def short_name(value: Any) -> str:
    """Return a name that a peer gives, such as the type of an event; "" for what is no string, or longer than a name.

    It becomes part of each place of an event, so it must be short.
    """
    return value if isinstance(value, str) and len(value) <= _LONGEST_NAME else ""


def answering(call_id: Any, base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message of a tool's result. Aim's schema accepts role tool only with the id of the call.

    It goes with each text of the result, so a long one is cut.
    """
    return {"role": "tool", "tool_call_id": call_id[:_LONGEST_ID]} if isinstance(call_id, str) and call_id else base
